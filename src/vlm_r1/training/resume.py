"""Resuming a killed training so that it ends as if nothing had happened.

A training writes into a work folder, `models/<run>.part`, which survives a kill. The next attempt
continues there from the newest complete checkpoint if the configuration is equal; log and samples
are cut back to that checkpoint. Whatever is set aside or removed is named in the log. Every
checkpoint keeps its weights; only the newest keeps the optimizer's state, which is larger.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from vlm_r1.errors import ModelError
from vlm_r1.files import put_in_place, whole_file, write_json
from vlm_r1.locks import lock
from vlm_r1.paths import step_of
from vlm_r1.rec.contract import differences

CONFIGURATION = "configuration.json"
LOG, SAMPLES = "training_log.jsonl", "samples"
LOCK = "lock"
INCOMPLETE = ".incomplete"  # suffix of a half-written checkpoint that was set aside
# What only resuming needs, in the order of its removal: the first two mark a checkpoint as one that
# can be resumed from (torch's optimizer, DeepSpeed's pointer to its folder).
MARKS = ("optimizer.pt", "latest")
STATE = (*MARKS, "global_step*", "zero_to_fp32.py", "scheduler.pt", "scaler.pt", "rng_state*.pth")

logger = logging.getLogger(__name__)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Lock a folder for one training, by a file in it; the OS releases it if the process dies.

    Raises:
        ModelError: another process holds the lock.
    """
    with (folder / LOCK).open("ab") as file:
        try:
            lock(file)
        except BlockingIOError:
            raise _held(folder.name) from None
        yield


def enter(folder: Path, configuration: dict[str, Any], every: int) -> Path | None:
    """Make `folder` ready to train in under `configuration`; called by the first process only.

    Args:
        every: resume only at multiples of this many steps, see `arguments.rollout_steps`.

    Returns:
        The checkpoint to continue from; None to start at step 1.

    Raises:
        ModelError: another process trains into the folder.
    """
    if folder.exists():
        with hold(folder):  # refuse before anything is moved; training itself holds it again
            pass
    _set_aside_other(folder, configuration)
    parked = _parking_place(folder, configuration)
    if not folder.exists() and parked.exists():
        parked.rename(folder)
        logger.info("%s: resumed, its configuration is back", folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIGURATION, configuration)
    for checkpoint in _checkpoints(folder):
        if not is_whole(checkpoint):
            _set_aside_incomplete(checkpoint)
    newest = newest_checkpoint(folder, every)
    if newest is not None:
        logger.info("%s: goes on from %s", folder.name, newest.name)
    _cut_back(folder, step_of(newest) if newest else 0)
    return newest


def newest_checkpoint(folder: Path, every: int) -> Path | None:
    """The newest whole checkpoint with optimizer state, at a multiple of `every` steps."""
    usable = [
        found
        for found in _checkpoints(folder)
        if step_of(found) % every == 0 and has_state(found) and is_whole(found)
    ]
    return max(usable, key=step_of, default=None)


def is_whole(checkpoint: Path) -> bool:
    """True if every process has written its share: its contract is written after that."""
    return (checkpoint / "contract.json").exists()


def has_state(checkpoint: Path) -> bool:
    """True if optimizer state is there: torch's file, or DeepSpeed's pointer to its folder."""
    return any((checkpoint / name).exists() for name in MARKS)


def keep_newest_state(folder: Path, every: int) -> None:
    """Leave the state (optimizer, schedule, random) of the newest resumable checkpoint only.

    The weights of all checkpoints stay. That one is on the disk before another loses its state, so
    that a kill or a power cut at any moment leaves a checkpoint to resume from.
    """
    newest = newest_checkpoint(folder, every)
    others = [found for found in _checkpoints(folder) if found != newest]
    if newest is not None and any(map(_state_of, others)):
        _sync(newest)
        drop_state(others)


def drop_state(checkpoints: Iterable[Path]) -> None:
    """Remove what only resuming needs; what a kill has left of it, too."""
    for file in (file for checkpoint in checkpoints for file in _state_of(checkpoint)):
        shutil.rmtree(file) if file.is_dir() else file.unlink()


def finish(folder: Path, output: Path) -> None:
    """After the last step: give the folder its final name, then remove what only resuming needs.

    In this order, or a kill in between would leave a training that is done and cannot be resumed.
    """
    for incomplete in folder.glob(f"*{INCOMPLETE}"):
        shutil.rmtree(incomplete)
    (folder / LOCK).unlink(missing_ok=True)
    put_in_place(folder, output)
    drop_state(_checkpoints(output))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a training log, without a last line that a kill has cut short."""
    if not path.exists():
        return []
    complete, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in complete.splitlines()]


def _held(name: str) -> ModelError:
    return ModelError(
        got=f"{name}: another process trains into it",
        need="one training at a time in a folder",
        because="two would write over each other's checkpoints",
        do="wait for it, or end it: a launcher that was killed can leave its processes behind",
    )


def _set_aside_other(folder: Path, configuration: dict[str, Any]) -> None:
    """Move a training under another configuration out of the way; remove files without one."""
    file = folder / CONFIGURATION
    if not file.exists():
        if folder.exists() and any(folder.iterdir()):
            logger.info("%s: no %s in it, removed", folder.name, CONFIGURATION)
        shutil.rmtree(folder, ignore_errors=True)
        return
    other = json.loads(file.read_text(encoding="utf-8"))
    if other == configuration:
        return
    parked = _parking_place(folder, other)
    shutil.rmtree(parked, ignore_errors=True)
    folder.rename(parked)
    found = "; ".join(differences(_flat(other), _flat(configuration)))
    logger.info("%s: of another configuration, set aside as %s (%s)", folder.name, parked, found)


def _parking_place(folder: Path, configuration: dict[str, Any]) -> Path:
    """Where a training under `configuration` waits while the folder is used under another."""
    text = json.dumps(configuration, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return folder.with_name(f"{folder.stem}.{digest}.part")


def _set_aside_incomplete(checkpoint: Path) -> None:
    aside = checkpoint.with_name(checkpoint.name + INCOMPLETE)
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)
    logger.info("%s: half-written, set aside as %s", checkpoint.name, aside.name)


def _cut_back(folder: Path, step: int) -> None:
    """Leave what an uninterrupted training has at `step`: checkpoints, log lines, samples."""
    for checkpoint in _checkpoints(folder):
        if step_of(checkpoint) > step:
            logger.info("%s: cannot be resumed from, removed", checkpoint.name)
            shutil.rmtree(checkpoint)
    lines = [line for line in read_log(folder / LOG) if line["step"] <= step]
    with whole_file(folder / LOG) as part:
        part.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for file in (folder / SAMPLES).glob("step-*"):
        # samples of `step` itself are written by the step after it
        if file.suffix != ".json" or step_of(file) >= step:
            file.unlink()


def _checkpoints(folder: Path) -> list[Path]:
    return [f for f in folder.glob("checkpoint-*") if f.name.removeprefix("checkpoint-").isdigit()]


def _state_of(checkpoint: Path) -> list[Path]:
    """Files and folders of the state, the marks first."""
    return [file for pattern in STATE for file in sorted(checkpoint.glob(pattern))]


def _sync(folder: Path) -> None:
    """Have the OS write a folder's files to the disk."""
    for file in (path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Nested values with dotted keys."""
    row = pd.json_normalize(values, sep=".").iloc[0].to_dict()  # plain numbers, for messages
    return {str(key): value for key, value in row.items()}
