"""One parser for every method: completion -> `Parsed` box or `Unparsed` reason. No torch.

The same rules read a plain SFT answer and an R1 completion, because two parsers for two methods
was one of the reasons why published comparisons could not be trusted.
"""

import re
from dataclasses import dataclass

import numpy as np

from vlm_r1.boxes import to_original

PARSER_VERSION = "1"

_NUMBER = r"\s*(-?\d{1,7}(?:\.\d{1,7})?)\s*"
_BOX = re.compile(r"\[" + ",".join([_NUMBER] * 4) + r"\]")
_ANSWER_OPEN, _ANSWER_CLOSE = "<answer>", "</answer>"
_THINK_OPEN, _THINK_CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Parsed:
    """The box a completion gives.

    Attributes:
        box: (x1, y1, x2, y2) as written, in the frame the model speaks.
        where: "answer" (inside answer tags) or "text" (no tags; after any thought).
        boxes: how many boxes stood there; the first one is taken.
    """

    box: tuple[float, float, float, float]
    where: str
    boxes: int


@dataclass(frozen=True)
class Unparsed:
    """Why no box could be read: empty, unclosed_think, no_box or reversed_corners."""

    reason: str


def parse_answer(completion: str) -> Parsed | Unparsed:
    """Read the first box of the answer in `completion`.

    The answer is the body of the first answer tag (up to its end or the text's end), else all
    that follows the thought, else the whole text. A box inside a thought is never an answer.
    Never raises; linear in the length of the text.
    """
    if not completion.strip():
        return Unparsed("empty")
    body, where = _answer_body(completion)
    if body is None:
        return Unparsed("unclosed_think")
    boxes = _BOX.findall(body)
    if not boxes:
        return Unparsed("no_box")
    x1, y1, x2, y2 = (float(number) for number in boxes[0])
    if x2 <= x1 or y2 <= y1:
        return Unparsed("reversed_corners")
    return Parsed((x1, y1, x2, y2), where, len(boxes))


def _answer_body(completion: str) -> tuple[str | None, str]:
    """The text that holds the answer and where it stood; None if a thought never ends."""
    _, opened, rest = completion.partition(_ANSWER_OPEN)
    if opened:
        return rest.partition(_ANSWER_CLOSE)[0], "answer"
    before_think, opened, thought = completion.partition(_THINK_OPEN)
    if not opened:
        return completion, "text"
    _, closed, after = thought.partition(_THINK_CLOSE)
    return (before_think + after, "text") if closed else (None, "text")


def box_in_original(
    answer: Parsed | Unparsed,
    frame: str,
    image_size: tuple[int, int] | None,
    input_size: tuple[int, int] | None,
) -> np.ndarray:
    """The answer's box (4,) in original pixels; NaN where there is none.

    Args:
        frame: the frame the model speaks in.
        image_size, input_size: (height, width) before and after the processor's resize; None will
            do where the frame is `original`.
    """
    if not isinstance(answer, Parsed):
        return np.full(4, np.nan)
    if frame == "original":
        return np.array(answer.box)
    return to_original(np.array(answer.box), frame, image_size, input_size)
