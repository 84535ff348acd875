"""Cache of raw completions: one folder for each checkpoint and list of questions.

`.cache/completions/<digest of the key>/key.json` is the key in full; `rank-<n>.jsonl`, one file for
each process, has one line for each row: {"row": 0, "text": "...", "input_size": [56, 84],
"new_tokens": 9, "cut_off": false}.

Parser, coordinate space and true boxes are not in the key, since completions are parsed again for
every result. Neither are batch size and device: they may flip a tie between two tokens, but do not
change the question (docs/evaluation.md).

A batch is appended in one write and synced to disk. A killed process leaves whole lines and at most
one partial line, which readers skip and the next writer truncates.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict

from vlm_r1 import paths
from vlm_r1.errors import ResultError
from vlm_r1.files import write_text
from vlm_r1.inference.questions import Completion
from vlm_r1.locks import lock

logger = logging.getLogger(__name__)

Append = Callable[[list[int], list[Completion]], None]


class CompletionKey(BaseModel):
    """Everything that determines the completions; raise `version` when generation changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint_digest: str
    base_digest: str  # an adapter's completions depend on its base too
    questions_digest: str
    min_pixels: int
    max_pixels: int
    dtype: str
    attention: str
    max_new_tokens: int
    decoding: str
    engine: str  # "transformers", or vLLM with its version
    torch: str  # versions that the engine computes with
    transformers: str
    version: Literal[2] = 2  # 2: lines have new_tokens and cut_off

    @property
    def digest(self) -> str:
        """First 32 hex digits of the SHA-256 of all fields."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:32]


class CompletionStore:
    """The completions of one key on disk."""

    def __init__(self, root: Path, key: CompletionKey) -> None:
        self.folder = root / paths.COMPLETIONS / key.digest
        self._key = key

    def read(self) -> dict[int, Completion]:
        """Row -> completion, from the files of all processes; of duplicates the first counts.

        Raises:
            ResultError: a whole line is not a completion (file and line named).
        """
        completions: dict[int, Completion] = {}
        for file in sorted(self.folder.glob("rank-*.jsonl")):
            *lines, _partial_line = file.read_bytes().split(b"\n")
            for number, line in enumerate(lines, start=1):
                row, completion = _parse_line(line, f"{file}: line {number}")
                completions.setdefault(row, completion)
        return completions

    def read_all(self, rows: int) -> list[Completion]:
        """The completions of rows 0 to `rows` - 1, in order.

        Raises:
            ResultError: one is missing.
        """
        completions = self.read()
        missing = [row for row in range(rows) if row not in completions]
        if missing:
            raise _unusable(f"{self.folder}: no completion of row {missing[0]}")
        return [completions[row] for row in range(rows)]

    @contextmanager
    def appending(self, rank: int) -> Iterator[Append]:
        """Lock this process's file and give a function that appends one batch to it.

        Blocks while another process of the same rank holds the lock, as when the stage runs while
        checkpoints are being watched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"rank-{rank}.jsonl").open("ab+") as file:
            _lock(file)
            if rank == 0:  # under its lock, so that only one process writes key.json
                write_text(self.folder / "key.json", self._key.model_dump_json(indent=1))
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            yield partial(_append, file)


def _append(file: BinaryIO, rows: list[int], completions: list[Completion]) -> None:
    lines = [
        json.dumps({"row": row, **asdict(answer)}) + "\n"
        for row, answer in zip(rows, completions, strict=True)
    ]
    file.write("".join(lines).encode())
    file.flush()
    os.fsync(file.fileno())


def _lock(file: BinaryIO) -> None:
    """Lock the file until it is closed."""
    try:
        lock(file)
    except BlockingIOError:
        logger.info("another process is generating these completions: waiting for it")
        lock(file, wait=True)


def _parse_line(line: bytes, where: str) -> tuple[int, Completion]:
    try:
        values = json.loads(line)
        height, width = values["input_size"]
        counts = values["new_tokens"], values["cut_off"]
        return values["row"], Completion(values["text"], (height, width), *counts)
    except (ValueError, KeyError, TypeError):
        raise _unusable(f"{where}: not a completion") from None


def _unusable(got: str) -> ResultError:
    return ResultError(
        got=got,
        need="one line for each row, as the evaluation wrote it",
        because="a missing or invented row would change the score",
        do=f"remove that folder, or all of {paths.COMPLETIONS}, and evaluate again",
    )
