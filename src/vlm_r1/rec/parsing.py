"""One parser for every method: completion -> `Parsed` box or `Unparsed` reason. No torch.

The same rules read a plain SFT answer and an R1 completion, because two parsers for two methods
was one of the reasons why published comparisons could not be trusted. VLM-R1's own parsers are
presets beside it (vlm_r1/rec/vlm_r1_parsers.py), for comparison alone.
"""

import re
from dataclasses import dataclass

import numpy as np

from vlm_r1.rec.boxes import to_original

# `parse_answer` has a version in every result's contract: rec/contract.py, PARSER_VERSION

# Four numbers in brackets. Possessive (`++`): nothing is read twice, so time is linear.
_NUMBER = r"\s*+(-?(?:\d{1,7}+(?:\.\d*+)?+|\.\d++))\s*+"
_BOX = re.compile(r"\[" + ",".join([_NUMBER] * 4) + r"\]")
_ANSWER_OPEN, _ANSWER_CLOSE = "<answer>", "</answer>"
_THINK_OPEN, _THINK_CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Parsed:
    """The box a completion gives.

    Attributes:
        box: (x1, y1, x2, y2) as written, in `coordinate_space`.
        coordinate space: the coordinate space the box is written in, as the caller assumes it.
        where: "answer" (inside answer tags) or "text" (no tags; outside any thought).
        boxes: how many boxes stood there; the first one is taken.
        repaired: whether reversed corners were put in order.
    """

    box: tuple[float, float, float, float]
    coordinate_space: str
    where: str
    boxes: int
    repaired: bool = False


@dataclass(frozen=True)
class Unparsed:
    """Why no box could be read: empty, unclosed_think, no_box or reversed_corners."""

    reason: str


def parse_answer(
    completion: str, coordinate_space: str = "original", repair: bool = False
) -> Parsed | Unparsed:
    """Read the first box of the answer in `completion`: four numbers in brackets.

    The answer is the body of the first answer tag (up to its end or the text's end), else all
    that is outside thoughts. A `</think>` without its opening ends a thought that the prompt
    opened. A box inside a thought is never an answer. Fences, JSON and prose around the box do not
    matter. Never raises; linear in the length of the text.

    Args:
        coordinate space: the coordinate space the model speaks in, one of `boxes.FRAMES`.
        repair: put reversed corners in order; without it they are no box. A box without width or
            height cannot be repaired.

    Example: '<think>left</think><answer>{"bbox_2d": [1, 2, 30, 40]}</answer>' ->
        Parsed((1, 2, 30, 40), "original", "answer", boxes=1)
    """
    if not completion.strip():
        return Unparsed("empty")
    body, where = _answer_body(completion)
    if body is None:
        return Unparsed("unclosed_think")
    boxes = _BOX.findall(body)
    if not boxes:
        return Unparsed("no_box")
    return _checked(tuple(map(float, boxes[0])), coordinate_space, where, len(boxes), repair)


def parse_boxes(completion: str) -> list[tuple[float, float, float, float]]:
    """Every box of the answer, as written and in that order; reversed corners stay reversed.

    What is the answer and what a box is as in `parse_answer`; none where a thought never ends.

    Example: "<answer>[1, 2, 3, 4], [5, 6, 7, 8]</answer>" -> [(1, 2, 3, 4), (5, 6, 7, 8)]
    """
    body, _ = _answer_body(completion)
    return [tuple(map(float, box)) for box in _BOX.findall(body or "")]


def box_in_original(
    answer: Parsed | Unparsed,
    image_size: tuple[int, int] | None,
    input_size: tuple[int, int] | None,
) -> np.ndarray:
    """The answer's box (4,) in original pixels; NaN where there is none.

    Args:
        image_size, input_size: (height, width) before and after the processor's resize; None will
            do where the box's coordinate space is `original`.
    """
    if not isinstance(answer, Parsed):
        return np.full(4, np.nan)
    if answer.coordinate_space == "original":
        return np.array(answer.box)
    return to_original(np.array(answer.box), answer.coordinate_space, image_size, input_size)


def _checked(
    box: tuple[float, float, float, float],
    coordinate_space: str,
    where: str,
    boxes: int,
    repair: bool,
) -> Parsed | Unparsed:
    """The box if its corners are in order, or can be put in order and shall be."""
    x1, y1, x2, y2 = box
    if x1 < x2 and y1 < y2:
        return Parsed(box, coordinate_space, where, boxes)
    if not repair or x1 == x2 or y1 == y2:
        return Unparsed("reversed_corners")
    ordered = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    return Parsed(ordered, coordinate_space, where, boxes, repaired=True)


def _answer_body(completion: str) -> tuple[str | None, str]:
    """The text that holds the answer and where it stood; None if a thought never ends."""
    _, opened, rest = completion.partition(_ANSWER_OPEN)
    if opened:
        return rest.partition(_ANSWER_CLOSE)[0], "answer"
    return _without_thoughts(completion), "text"


def _without_thoughts(text: str) -> str | None:
    """What stands outside of thoughts; None if a thought never ends."""
    *closed, rest = text.split(_THINK_CLOSE)
    if _THINK_OPEN in rest:
        return None
    before = [part.partition(_THINK_OPEN)[0] for part in closed if _THINK_OPEN in part]
    return "".join([*before, rest])
