"""Rewards for the form of a completion: format, length, repetition."""

import re
from collections.abc import Hashable, Sequence

import numpy as np

from vlm_r1.rec import boxes
from vlm_r1.rec.parsing import parse_boxes, says_none
from vlm_r1.rec.rewards.batch import Batch

# A thought, then answer tags around a JSON object with four integers (VLM-R1, REC task).
_R1_FORMAT = re.compile(
    r"<think>.*?</think>\s*<answer>.*?\{.*\[\d+,\s*\d+,\s*\d+,\s*\d+\].*\}.*?</answer>", re.DOTALL
)
MAX_FORMAT_CHARACTERS = 10_000  # longer texts score 0: the pattern backtracks for seconds
LONGEST_CHARACTERS = 1024  # the length reward stops falling there
RUN_WORDS = 6  # VLM-R1 counts repeated runs of six words


def format_(batch: Batch) -> list[float | None]:
    """1 where a thought is followed by a JSON object with four integers in answer tags, else 0.

    In detection, None in answer tags has the format too.

    Example: '<think>left</think><answer>{"bbox_2d": [1, 2, 3, 4]}</answer>' -> 1
    """
    return [
        max(has_format(text), 0.0 if batch.labels(row) is None else _says_none(text))
        for row, text in enumerate(batch.texts)
    ]


def length(batch: Batch) -> list[float | None]:
    """Higher for shorter completions: falls along a cosine from L = 0 to 1024 characters.

    last + (first - last) (1 + cos(pi min(L, 1024) / 1024)) / 2, with first, last = 1, 0.5 where
    IoU is above 0.5, and 0, -0.5 elsewhere. None without a true box. (Yeo et al. 2025, with the
    values of VLM-R1, which treats every answer as correct and rises again beyond 1024.)

    Example: 512 characters, a hit -> 0.5 + 0.5 (1 + cos(pi / 2)) / 2 = 0.75; a miss -> -0.25
    """
    characters = np.minimum([len(text) for text in batch.texts], LONGEST_CHARACTERS)
    bonus = (1 + np.cos(np.pi * characters / LONGEST_CHARACTERS)) / 4
    return batch.where_judgeable(np.where(boxes.is_hit(batch.ious), 0.5, -0.5) + bonus)


def repetition(batch: Batch) -> list[float | None]:
    """Minus the share of repeated parts, -1 to 0: of six-word runs or of boxes, the larger one.

    The share is 1 - distinct / all; a text of fewer than six words has no runs and repeats nothing.

    Example: "a b c d e f a b c d e f" has 7 runs, 6 of them distinct -> 6 / 7 - 1 = -0.143
    Example: four boxes, two of them distinct -> 2 / 4 - 1 = -0.5
    """
    return [-max(_repeated(_runs(text)), _repeated(parse_boxes(text))) for text in batch.texts]


def has_format(text: str) -> float:
    """1.0 if one completion has the format of `format_`, else 0.0."""
    if len(text) > MAX_FORMAT_CHARACTERS:
        return 0.0
    return float(_R1_FORMAT.search(text) is not None)


def _says_none(text: str) -> float:
    """1.0 if a thought is followed by None in answer tags, else 0.0."""
    thought, closed, rest = text[:MAX_FORMAT_CHARACTERS].partition("</think>")
    return float("<think>" in thought and closed != "" and "<answer>" in rest and says_none(rest))


def _runs(text: str) -> list[tuple[str, ...]]:
    words = text.lower().split()
    return list(zip(*(words[start:] for start in range(RUN_WORDS)), strict=False))


def _repeated(parts: Sequence[Hashable]) -> float:
    return 1 - len(set(parts)) / len(parts) if parts else 0.0
