"""What an engine is: it answers questions with one checkpoint, until it is closed."""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from accelerate import PartialState

from vlm_r1.inference.questions import Completion, Question
from vlm_r1.inference.sampling import Sampling


@dataclass(frozen=True)
class Host:
    """Where engines run: the project's folder, this process among others, and its device."""

    root: Path
    distributed: PartialState
    device: torch.device


class Versions(NamedTuple):
    """An engine and what it computes with, as the cache's key names them."""

    engine: str
    torch: str
    transformers: str


class Answers(NamedTuple):
    """Row numbers and their completions."""

    rows: list[int]
    completions: list[Completion]


class Engine(Protocol):
    """Answers questions with one checkpoint."""

    def answer(
        self, questions: list[Question], cached: Set[int], sampling: Sampling | None = None
    ) -> Iterator[Answers]:
        """Completions of this process's share of the rows that are not in `cached`.

        Args:
            sampling: None: greedy completions.

        Raises:
            DataError: an image is missing or broken.
            ModelError: the checkpoint cannot be used.
        """

    def close(self) -> None:
        """Free the device's memory and end what was started."""
