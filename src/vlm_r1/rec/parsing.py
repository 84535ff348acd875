"""One parser for every method: completion -> `Parsed` box or `Unparsed` reason. No torch.

Plain SFT answers and R1 completions are read by the same rules: a parser per method was one of the
reasons why published comparisons could not be trusted. VLM-R1's own parsers are presets, used only
to reproduce its numbers (vlm_r1_parsers.py).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlm_r1.rec.boxes import to_original

# `parse_answer` has a version in every result's contract: PARSER_VERSION in rec/contract.py.
Xyxy = tuple[float, float, float, float]

# Four numbers in brackets. Possessive quantifiers (`++`) never backtrack, so time is linear.
_NUMBER = r"\s*+(-?(?:\d{1,7}+(?:\.\d*+)?+|\.\d++))\s*+"
_BOX = re.compile(r"\[" + ",".join([_NUMBER] * 4) + r"\]")
_LABEL = re.compile(r'"label"\s*+:\s*+"((?:[^"\\]|\\.)*+)"')
_NOTHING = "none"  # the answer where nothing of what is asked for is in the image (VLM-R1, OVD)
_ANSWER_OPEN, _ANSWER_CLOSE = "<answer>", "</answer>"
_THINK_OPEN, _THINK_CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Parsed:
    """The box read from a completion.

    Attributes:
        box: (x1, y1, x2, y2) as written, in `coordinate_space`.
        coordinate_space: the coordinate space the caller assumes the box is written in.
        where: "answer" (inside answer tags) or "text" (no tags; outside any thought).
        boxes: number of boxes found there, of which one is used.
        repaired: whether reversed corners were put in order.
    """

    box: Xyxy
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

    The answer is the body of the first answer tag (up to its end or the end of the text), else all
    text outside thoughts. A `</think>` without `<think>` ends a thought that the prompt opened. A
    box inside a thought is never an answer. Code fences, JSON and prose around the box are ignored.
    Never raises; time is linear in the length of the text.

    Args:
        coordinate_space: the one the model writes, of `boxes.COORDINATE_SPACES`.
        repair: put reversed corners in order; otherwise they count as unparsed. A box without width
            or height cannot be repaired.

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
    return _checked(_numbers(boxes[0]), coordinate_space, where, len(boxes), repair)


def parse_boxes(completion: str) -> list[Xyxy]:
    """Every box of the answer, as written and in that order; reversed corners stay reversed.

    Finds the answer as `parse_answer` does; an empty list if a thought never ends.

    Example: "<answer>[1, 2, 3, 4], [5, 6, 7, 8]</answer>" -> [(1, 2, 3, 4), (5, 6, 7, 8)]
    """
    body, _ = _answer_body(completion)
    return [_numbers(box) for box in _BOX.findall(body or "")]


def parse_labeled_boxes(completion: str) -> list[tuple[Xyxy, str]]:
    """Every box of the answer with the label that stands in the same braces; "" if none does.

    Boxes as `parse_boxes` gives them.

    Example: '[{"bbox_2d": [1, 2, 3, 4], "label": "dog"}]' -> [((1, 2, 3, 4), "dog")]
    """
    body = _answer_body(completion)[0] or ""
    found = list(_BOX.finditer(body))
    ends = [0, *(box.end() for box in found)]
    starts = [*(box.start() for box in found[1:]), len(body)]
    return [
        (_numbers(box.groups()), _label(body[end : box.start()], body[box.end() : start]))
        for box, end, start in zip(found, ends, starts, strict=False)
    ]


def says_none(completion: str) -> bool:
    """Whether the answer is the word None: nothing of what is asked for is in the image."""
    body = _answer_body(completion)[0] or ""
    return body.strip().rstrip(".").lower() == _NOTHING


def _label(before: str, after: str) -> str:
    """The label in the braces that open before a box and close after it.

    Args:
        before, after: the text between the box and the ones before and after it.
    """
    _, opened, left = before.rpartition("{")
    right, closed, _ = after.partition("}")
    found = _LABEL.search(left + right) if opened and closed else None
    if found is None:
        return ""
    try:
        return str(json.loads(f'"{found[1]}"')).strip()
    except ValueError:  # an escape or a line break that is not JSON
        return found[1].strip()


def box_in_original(
    answer: Parsed | Unparsed,
    image_size: tuple[int, int] | None,
    input_size: tuple[int, int] | None,
) -> np.ndarray:
    """The answer's box (4,) in original pixels; NaN if unparsed.

    Args:
        image_size, input_size: (height, width) before and after the processor's resize; not needed
            for a box in `original` pixels, `input_size` only for one in `input` pixels.

    Raises:
        ValueError: a size that the box's coordinate space needs is None.
    """
    if not isinstance(answer, Parsed):
        return np.full(4, np.nan)
    if answer.coordinate_space == "original":
        return np.array(answer.box)
    if image_size is None or (answer.coordinate_space == "input" and input_size is None):
        raise ValueError(f"a box in coordinate space {answer.coordinate_space} needs its sizes")
    return to_original(answer.box, answer.coordinate_space, image_size, input_size or image_size)


def _numbers(found: Sequence[str]) -> Xyxy:
    x1, y1, x2, y2 = map(float, found)
    return x1, y1, x2, y2


def _checked(
    box: Xyxy, coordinate_space: str, where: str, boxes: int, repair: bool
) -> Parsed | Unparsed:
    """The box if its corners are in order, or if `repair` can put them in order."""
    x1, y1, x2, y2 = box
    if x1 < x2 and y1 < y2:
        return Parsed(box, coordinate_space, where, boxes)
    if not repair or x1 == x2 or y1 == y2:
        return Unparsed("reversed_corners")
    ordered = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    return Parsed(ordered, coordinate_space, where, boxes, repaired=True)


def _answer_body(completion: str) -> tuple[str | None, str]:
    """The text of the answer and where it was found; None if a thought never ends."""
    _, opened, rest = completion.partition(_ANSWER_OPEN)
    if opened:
        return rest.partition(_ANSWER_CLOSE)[0], "answer"
    return _without_thoughts(completion), "text"


def _without_thoughts(text: str) -> str | None:
    """The text outside thoughts; None if a thought never ends."""
    *closed, rest = text.split(_THINK_CLOSE)
    if _THINK_OPEN in rest:
        return None
    before = [part.partition(_THINK_OPEN)[0] for part in closed if _THINK_OPEN in part]
    return "".join([*before, rest])
