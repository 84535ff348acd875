"""The cache of raw completions: a folder for each unit, named by all that its completions hang on.

`.cache/completions/<key>/key.json` says what the name stands for; `rank-<n>.jsonl`, one file a
process, holds a line for each row: {"row": 0, "text": "...", "input_size": [56, 84]}.

A parser, a coordinate space or a true box is no part of the key: completions are read anew with
    every result.
Nor are batch size and device, which may flip a tie but are not what was asked (docs/evaluation.md).

A batch is written at once and forced to the disk. What a killed process leaves is whole lines and
at most one half line; readers pass over that one, the next writer cuts it off.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field

from vlm_r1 import paths
from vlm_r1.errors import ResultError
from vlm_r1.inference.questions import Completion

logger = logging.getLogger(__name__)

Append = Callable[[list[int], list[Completion]], None]


class CompletionKey(BaseModel):
    """What was asked of whom; `version` counts changes of our own way of asking."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint_digest: str
    base_digest: str  # an adapter's answers hang on its base too
    questions_digest: str
    min_pixels: int
    max_pixels: int
    dtype: str
    attention: str
    max_new_tokens: int
    decoding: str
    version: Literal[1] = 1
    torch: str = Field(default_factory=partial(metadata.version, "torch"))
    transformers: str = Field(default_factory=partial(metadata.version, "transformers"))

    @property
    def digest(self) -> str:
        """First 32 hex digits of the SHA-256 of all fields."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:32]


class CompletionStore:
    """One unit's completions on disk."""

    def __init__(self, root: Path, key: CompletionKey) -> None:
        self.folder = root / paths.COMPLETIONS / key.digest
        self._key = key

    def read(self) -> dict[int, Completion]:
        """Row -> completion of every whole line, of all processes; a row's first line counts.

        Raises:
            ResultError: a whole line that is no completion (file and line named).
        """
        found: dict[int, Completion] = {}
        for file in sorted(self.folder.glob("rank-*.jsonl")):
            *whole, _half = file.read_bytes().split(b"\n")
            for number, line in enumerate(whole, start=1):
                row, completion = _read_line(line, f"{file}: line {number}")
                found.setdefault(row, completion)
        return found

    def read_all(self, rows: int) -> list[Completion]:
        """The completions of rows 0 to `rows` - 1, in order.

        Raises:
            ResultError: one is missing.
        """
        found = self.read()
        missing = [row for row in range(rows) if row not in found]
        if missing:
            raise _unusable(f"{self.folder}: no completion of row {missing[0]}")
        return [found[row] for row in range(rows)]

    @contextmanager
    def appending(self, rank: int) -> Iterator[Append]:
        """What writes (rows, completions) of one batch; waits for whoever else writes this file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"key-{rank}.part"
        part.write_text(self._key.model_dump_json(indent=1) + "\n", encoding="utf-8")
        part.replace(self.folder / "key.json")
        with (self.folder / f"rank-{rank}.jsonl").open("ab+") as file:
            _lock(file)
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            yield partial(_append, file)


def _append(file: BinaryIO, rows: list[int], completions: list[Completion]) -> None:
    lines = [
        json.dumps({"row": row, "text": answer.text, "input_size": answer.input_size}) + "\n"
        for row, answer in zip(rows, completions, strict=True)
    ]
    file.write("".join(lines).encode())
    file.flush()
    os.fsync(file.fileno())


def _lock(file: BinaryIO) -> None:
    """Hold the file until it is closed; the system lets go of it when a process is killed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.info("another process is answering this unit: waiting for it")
        fcntl.flock(file, fcntl.LOCK_EX)


def _read_line(line: bytes, where: str) -> tuple[int, Completion]:
    try:
        values = json.loads(line)
        height, width = values["input_size"]
        return values["row"], Completion(values["text"], (height, width))
    except (ValueError, KeyError, TypeError):
        raise _unusable(f"{where}: not a completion") from None


def _unusable(got: str) -> ResultError:
    return ResultError(
        got=got,
        need="one line for each row, as the evaluation wrote it",
        because="a row that is left out or made up would change the score",
        do=f"remove that folder, or all of {paths.COMPLETIONS}, and evaluate again",
    )
