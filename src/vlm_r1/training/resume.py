"""Going on where a killed training stopped, so that it ends as if nothing had happened.

A training writes into `models/<method>.part`, which outlives it. Whoever starts there again enters
only under the same configuration and goes on from the newest whole checkpoint; log and samples are
cut back to it. What is set aside or removed is named in the log.
"""

import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
from trl import GRPOConfig, SFTConfig

from vlm_r1.config import Params
from vlm_r1.config.deepspeed import deepspeed_config
from vlm_r1.errors import ModelError
from vlm_r1.paths import step_of
from vlm_r1.rec.contract import TrainingContract, differences
from vlm_r1.rec.rewards.custom import source_file

CONFIGURATION = "configuration.json"
LOG, SAMPLES = "training_log.jsonl", "samples"
INCOMPLETE = ".incomplete"  # ending of a half-written checkpoint that was set aside
PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "deepspeed")
CODE = (
    *("training", "rewards", "data/images.py"),
    *("models/loading.py", "models/families.py", "models/options.py"),
    *("answers.py", "boxes.py", "prompts.py"),
)

logger = logging.getLogger(__name__)


def configuration_of(
    params: Params, contract: TrainingContract, method: str, root: Path
) -> dict[str, Any]:
    """All that a training's weights and curve hang on, as plain values."""
    settings = params.model_dump(include={"task", "train", method}, mode="json")
    del settings["train"]["save_only_model"]  # shapes what is kept, not what is learned
    own = [name for name in params.grpo.rewards if ":" in name] if method == "grpo" else []
    return {
        **settings,
        "contract": contract.model_dump(),
        "own_rewards": {name: _digest([source_file(name, root)]) for name in own},
        "deepspeed": deepspeed_config(params.train.deepspeed),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "code": _code_digest(),
    }


def rollout_steps(arguments: SFTConfig | GRPOConfig) -> int:
    """Optimizer steps after which a new rollout begins; 1 for SFT.

    TRL does not save its buffer of completions: resumed within a rollout it would draw new ones.
    """
    if not isinstance(arguments, GRPOConfig):
        return 1
    micro_batches = arguments.steps_per_generation * arguments.num_iterations
    return micro_batches // math.gcd(micro_batches, arguments.gradient_accumulation_steps)


@contextmanager
def hold(output: Path) -> Iterator[None]:
    """Keep a folder for one training; whoever else holds it lets go at the latest when it dies.

    Raises:
        ModelError: another process holds it.
    """
    folder = os.open(output, os.O_RDONLY)
    try:
        _lock(folder, output.name)
        yield
    finally:
        os.close(folder)


def enter(output: Path, configuration: dict[str, Any], every: int) -> Path | None:
    """Make `output` a folder to train into under `configuration`; the first process does it.

    Args:
        every: resume only at a multiple of so many steps, see `rollout_steps`.

    Returns:
        The checkpoint to go on from; None to begin with step 1.

    Raises:
        ModelError: another process trains into it.
    """
    if output.exists():
        with hold(output):
            pass
    _set_aside_other(output, configuration)
    parked = _parking(output, configuration)
    if not output.exists() and parked.exists():
        parked.rename(output)
        logger.info("%s: taken up again, its configuration is back", output.name)
    output.mkdir(parents=True, exist_ok=True)
    _write_json(output / CONFIGURATION, configuration)
    for folder in _checkpoints(output):
        if not (folder / "contract.json").exists():
            _set_aside_incomplete(folder)
    newest = newest_checkpoint(output, every)
    step = step_of(newest) if newest else 0
    if step:
        logger.info("%s: goes on from %s", output.name, newest.name)
    _cut_back(output, step)
    return newest


def newest_checkpoint(output: Path, every: int) -> Path | None:
    """The newest checkpoint that holds the full state, at a multiple of `every` steps."""
    usable = [f for f in _checkpoints(output) if step_of(f) % every == 0 and _has_state(f)]
    return max(usable, key=step_of, default=None)


def tidy(output: Path) -> None:
    """After the last step: remove the half-written checkpoints that were set aside."""
    for folder in output.glob(f"*{INCOMPLETE}"):
        shutil.rmtree(folder)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a training log; one that a kill cut short at the end is left out."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def _lock(folder: int, name: str) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ModelError(
            got=f"{name}: another process trains into it",
            need="one training at a time in a folder",
            because="two would write over each other's checkpoints",
            do="wait for it, or end it: a launcher that was killed can leave its processes behind",
        ) from None


def _set_aside_other(output: Path, configuration: dict[str, Any]) -> None:
    """Move what was trained under another configuration out of the way."""
    file = output / CONFIGURATION
    if not file.exists():
        if output.exists() and any(output.iterdir()):
            logger.info("%s: no %s in it, removed", output.name, CONFIGURATION)
        shutil.rmtree(output, ignore_errors=True)
        return
    other = json.loads(file.read_text(encoding="utf-8"))
    if other == configuration:
        return
    parked = _parking(output, other)
    shutil.rmtree(parked, ignore_errors=True)
    output.rename(parked)
    found = "; ".join(differences(_flat(other), _flat(configuration)))
    logger.info("%s: of another configuration, set aside as %s (%s)", output.name, parked, found)


def _set_aside_incomplete(folder: Path) -> None:
    aside = folder.with_name(folder.name + INCOMPLETE)
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    logger.info("%s: half-written, set aside as %s", folder.name, aside.name)


def _cut_back(output: Path, step: int) -> None:
    """Leave of checkpoints, log and samples what an uninterrupted run has at `step`."""
    for folder in _checkpoints(output):
        if step_of(folder) > step:
            logger.info("%s: cannot be resumed from, removed", folder.name)
            shutil.rmtree(folder)
    lines = [line for line in read_log(output / LOG) if line["step"] <= step]
    part = output / f"{LOG}.part"
    part.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    part.replace(output / LOG)
    for file in (output / SAMPLES).glob("step-*"):
        if file.suffix != ".json" or step_of(file) >= step:
            file.unlink()


def _checkpoints(output: Path) -> list[Path]:
    return [f for f in output.glob("checkpoint-*") if f.name.removeprefix("checkpoint-").isdigit()]


def _has_state(folder: Path) -> bool:
    """Whether optimizer state is there: torch's file, or DeepSpeed's pointer to its folder."""
    return any((folder / name).exists() for name in ("optimizer.pt", "latest"))


def _parking(output: Path, configuration: dict[str, Any]) -> Path:
    text = json.dumps(configuration, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return output.with_name(f"{output.stem}.{digest}.part")


def _code_digest() -> str:
    """The digest of the code that a training runs."""
    package = Path(__file__).parents[1]
    named = [package / name for name in CODE]
    return _digest([f for path in named for f in (path.rglob("*.py") if path.is_dir() else [path])])


def _digest(files: list[Path]) -> str:
    """First 16 hex digits of the SHA-256 of the files' bytes."""
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(file.read_bytes())
    return total.hexdigest()[:16]


def _write_json(path: Path, values: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    return pd.json_normalize(values, sep=".").iloc[0].to_dict()
