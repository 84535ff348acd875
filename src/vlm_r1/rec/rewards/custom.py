"""Custom rewards: a Python function named in `grpo.rewards` and called as TRL calls it.

    def reward(prompts, completions, completion_ids, **columns) -> list[float | None]: ...

`completions[i][0]["content"]` is a completion's text. `columns` has one list per column of the
training rows (true_box, true_boxes, true_labels, image_size, input_size, record_id, expression,
accuracy_reward, image, image_path), and TRL's trainer_state, log_extra(column, values) and
log_metric(name, value). The function returns one number per completion, None where it cannot judge.
"""

import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from types import ModuleType

from vlm_r1.errors import ConfigError

Function = Callable[..., list[float | None]]
# what TRL passes: its own arguments, and the columns of training/grpo.py
SENT = (
    *("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric"),
    *("true_box", "true_boxes", "true_labels", "image_size", "input_size", "record_id"),
    *("expression", "accuracy_reward", "image", "image_path"),
)
SIGNATURE = "a function (prompts, completions, completion_ids, **columns) -> list of float or None"


def load_function(name: str, root: Path) -> Function:
    """The function named `folder/file.py:function` or `package.module:function`.

    Args:
        root: the project's root, which a file is relative to.

    Raises:
        ConfigError: it cannot be imported, is no function, or cannot be called as TRL calls it.
    """
    where, _, attribute = name.rpartition(":")
    try:
        in_file = where.endswith(".py")
        module = _load_file(root / where) if in_file else importlib.import_module(where)
    except Exception as error:  # a user's module can raise anything on import
        raise _unusable(name, f"{type(error).__name__}: {error}") from error
    function: Function | None = getattr(module, attribute, None)
    if not callable(function):
        raise _unusable(name, f"no function {attribute!r} in it")
    if inspect.iscoroutinefunction(function):
        raise _unusable(name, "an async function")
    try:
        inspect.signature(function).bind(**dict.fromkeys(SENT))
    except TypeError as error:
        raise _unusable(name, f"{attribute}{inspect.signature(function)}: {error}") from None
    return function


def require_rewards(name: str, returned: object, completions: int) -> list[float | None]:
    """The values that a reward function returned, checked: one number or None per completion.

    Raises:
        ConfigError: another length or type, or a number that is not finite.
    """
    if not isinstance(returned, list | tuple):
        raise _unusable(name, f"it returned a {type(returned).__name__}")
    if len(returned) != completions:
        raise _unusable(name, f"it returned {len(returned)} values for {completions} completions")
    for row, value in enumerate(returned):
        if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
            raise _unusable(name, f"it returned {value!r} for completion {row}")
    return [None if value is None else float(value) for value in returned]


def source_file(name: str, root: Path) -> Path:
    """The file of the function `name`, which must have been loaded."""
    where = name.rpartition(":")[0]
    return root / where if where.endswith(".py") else Path(inspect.getfile(sys.modules[where]))


def _load_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"vlm_r1_reward_{file.stem}", file)
    assert spec is not None  # a name that ends in .py has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def _unusable(name: str, fault: str) -> ConfigError:
    return ConfigError(
        got=f"grpo.rewards: {name}: {fault}",
        need=SIGNATURE,
        because="TRL calls it with these keyword arguments, once for all completions of a batch",
        do="correct the function, or its name: FILE.py:FUNCTION (relative to the project) or "
        "PACKAGE.MODULE:FUNCTION",
    )
