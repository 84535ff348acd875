"""Reading params.yaml or a profile; every fault is named by its dotted key."""

import difflib
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from vlm_r1.config.base import Section
from vlm_r1.config.sections import Params
from vlm_r1.errors import ConfigError, describe_detail

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PROFILES = Path("profiles")
ENTRIES = ("draw", "datasets")  # sections whose keys are names of the user's own choice


def profile_file(name: str, folder: Path = PROFILES) -> Path:
    """The params file of the profile `name`.

    Raises:
        ConfigError: there is no such profile.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none here"
        raise ConfigError(
            got=f"profile {name!r}",
            need=f"one of: {known}",
            because=f"a profile is a params file in {folder}/",
            do="name one of these, or write that file; run from the project's root",
        )
    return path


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check a params file.

    Raises:
        ConfigError: the file is missing or is not YAML; a key is missing or unknown; a wrong value.
    """
    return parse_params(_read_yaml(path), source=str(path))


def parse_params(values: dict[str, Any], source: str) -> Params:
    """Check `values`, which come from the file `source`.

    Raises:
        ConfigError: a key is missing or unknown, or a value is wrong; names every such key.
    """
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise ConfigError(
            got=f"{source}: {'; '.join(_fault_text(fault, source) for fault in faults)}",
            need="every key of every section, with a value of the documented type, and no others",
            because="this file has all values of an experiment; the code has no defaults",
            do="correct the keys named above; `vlm-r1 config` prints the resolved parameters",
        ) from None


def _fault_text(fault: "ErrorDetails", source: str) -> str:
    *section, key = fault["loc"] or ("",)
    dotted = ".".join(map(str, fault["loc"]))
    if fault["type"] == "missing":
        return f"{dotted}: missing{_value_elsewhere(fault['loc'], source)}"
    if fault["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(key), _keys_of(section), n=1)
        guess = f"; did you mean {'.'.join([*map(str, section), close[0]])}?" if close else ""
        return f"{dotted}: no such key{guess}"
    return describe_detail(fault)


def _keys_of(path: list[int | str]) -> list[str]:
    """Keys of the section at `path`."""
    section: type[Section] = Params
    for part in path:
        if part in section.model_fields:  # else the name of an entry, whose type it is already
            section = _section_in(section.model_fields[str(part)].annotation)
    return list(section.model_fields)


def _section_in(annotation: Any) -> type[Section]:
    """The section that a type is or holds, as `dict[str, Dataset]` and `Lora | None` do."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(map(_section_in, reversed(typing.get_args(annotation))))


def _value_elsewhere(path: tuple[int | str, ...], source: str) -> str:
    """What another params file has at `path`, for a message; "" if none has it."""
    for file in (Path("params.yaml"), *sorted(PROFILES.glob("*.yaml"))):
        if file.is_file() and str(file) != source:
            found = _look_up(yaml.safe_load(file.read_text(encoding="utf-8")), path)
            if found is not None:
                return f" ({file} has {found})"
    return ""


def _look_up(values: Any, path: tuple[int | str, ...]) -> str | None:
    """The value at `path` as YAML on one line; of any entry where the path names one of its own."""
    for depth, part in enumerate(path):
        if not isinstance(values, dict):
            return None
        own = depth == 1 and path[0] in ENTRIES
        if part not in values and not (own and values):
            return None
        values = next(iter(values.values())) if part not in values else values[part]
    text = yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("...\n").strip()


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        values, fault = None, "no such file"
    except yaml.YAMLError as error:
        values, fault = None, " ".join(str(error).split())
    else:
        fault = f"a {type(values).__name__}"
    if not isinstance(values, dict):
        raise ConfigError(
            got=f"{path}: {fault}",
            need="a YAML file with one section per stage",
            because="every stage reads its parameters there",
            do="run from the project's root, or name the file with --params",
        )
    return values
