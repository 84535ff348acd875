"""Presets that read and measure an answer: ours, and VLM-R1's own scripts. Text and numpy only.

VLM-R1 reads R1 completions and SFT answers by different rules and computes IoU with inclusive
pixels. Its presets exist to reproduce its stated numbers; both methods are scored by `standard`.
Rules: om-ai-lab/VLM-R1, src/eval/test_rec_r1.py and test_rec_baseline.py. All readers here take
linear time, unlike VLM-R1's regular expressions; a test checks that they read the same.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from vlm_r1.errors import ConfigError
from vlm_r1.rec.boxes import iou
from vlm_r1.rec.parsing import Parsed, Unparsed, parse_answer

_INTEGER_BOX = re.compile(r"\[(\d++),\s*+(\d++),\s*+(\d++),\s*+(\d++)\]")
_FLOAT = r"\s*+(-?(?:\d++(?:\.\d++)?+|\.\d++))\s*+"
_FLOAT_BOX = re.compile(r"\[" + ",".join([_FLOAT] * 4) + r"\]")


@dataclass(frozen=True)
class Preset:
    """How answers are read and measured.

    Attributes:
        read: (completion, coordinate space the model writes) -> its box, or why there is none.
        overlap: IoU (n,) of predicted and true boxes (n, 4), xyxy in original pixels; 0 where a
            box is NaN.
    """

    name: str
    read: Callable[[str, str], Parsed | Unparsed]
    overlap: Callable[[np.ndarray, np.ndarray], np.ndarray] = iou


def preset_named(name: str, repair: bool = False) -> Preset:
    """The preset called `name`; `REPAIRING` for `standard` with `repair`.

    Raises:
        ConfigError: there is no such preset, or it cannot repair corners.
    """
    if name not in PRESETS or (repair and name != STANDARD.name):
        raise ConfigError(
            got=f"preset {name!r}{' with repaired corners' if repair else ''}",
            need=f"one of {', '.join(PRESETS)}; only standard repairs corners",
            because="VLM-R1's presets read exactly as VLM-R1 did",
            do="correct the name, or repair under standard",
        )
    return REPAIRING if repair else PRESETS[name]


def inclusive_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """VLM-R1's IoU (n,) of boxes (n, 4), xyxy in original pixels.

    The intersection is computed with inclusive pixels (x2 - 1, then + 1) and must be more than one
    pixel wide and high; the areas are plain. Otherwise it equals `boxes.iou`. NaN rows give 0.
    """
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., 2:] - 1, b[..., 2:] - 1)
    inter = np.where((low < high).all(axis=-1), (high - low + 1).prod(axis=-1), 0.0)
    with np.errstate(all="ignore"):  # a model may write numbers whose area overflows
        areas = [(box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (a, b)]
        return np.where(inter > 0, inter / (areas[0] + areas[1] - inter), 0.0)


def _read_r1_on_one_line(completion: str, coordinate_space: str) -> Parsed | Unparsed:
    """R1 until 2025-02-27: the answer tag and its body must be on one line."""
    for line in completion.split("\n"):
        _, _, rest = line.partition("<answer>")
        body, closed, _ = rest.partition("</answer>")
        if closed:
            return _last_integer_box(body, coordinate_space)
    return Unparsed("no_answer")


def _read_r1(completion: str, coordinate_space: str) -> Parsed | Unparsed:
    """R1 since then: the first closed answer tag, over any number of lines."""
    _, _, rest = completion.partition("<answer>")
    body, closed, _ = rest.partition("</answer>")
    return _last_integer_box(body, coordinate_space) if closed else Unparsed("no_answer")


def _last_integer_box(body: str, coordinate_space: str) -> Parsed | Unparsed:
    """The last box of four non-negative integers between the first `{` and the last `}`."""
    first, last = body.find("{"), body.rfind("}")
    boxes = _INTEGER_BOX.findall(body, first + 1, last) if 0 <= first < last else []
    return (
        _finite(boxes[-1], coordinate_space, "answer", len(boxes)) if boxes else Unparsed("no_box")
    )


def _read_first_floats(completion: str, coordinate_space: str) -> Parsed | Unparsed:
    """The baseline script since 2025-03-24: the first four numbers in brackets, anywhere."""
    boxes = _FLOAT_BOX.findall(completion)
    return _finite(boxes[0], coordinate_space, "text", len(boxes)) if boxes else Unparsed("no_box")


def _read_feb_sft(completion: str, coordinate_space: str) -> Parsed | Unparsed:
    """The baseline script of February: numbers up to 1 are 0-1, truncated to thousandths."""
    answer = _read_first_floats(completion, coordinate_space)
    if isinstance(answer, Unparsed) or max(answer.box) > 1:
        return answer
    thousandths = [1000 * side for side in answer.box]
    if not all(map(math.isfinite, thousandths)):
        return Unparsed("number_too_large")
    x1, y1, x2, y2 = (float(math.trunc(side)) for side in thousandths)
    return Parsed((x1, y1, x2, y2), "thousand", "text", answer.boxes)


def _read_mar(completion: str, coordinate_space: str) -> Parsed | Unparsed:
    """March had one script per method; a completion with a tag is read as the R1 script does."""
    tagged = "<think>" in completion or "<answer>" in completion
    return (_read_r1 if tagged else _read_first_floats)(completion, coordinate_space)


def _finite(
    numbers: tuple[str, str, str, str], coordinate_space: str, where: str, boxes: int
) -> Parsed | Unparsed:
    """The box as written, reversed or not; VLM-R1's scripts crash on numbers that overflow."""
    x1, y1, x2, y2 = map(float, numbers)
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        return Unparsed("number_too_large")
    return Parsed((x1, y1, x2, y2), coordinate_space, where, boxes)


STANDARD = Preset("standard", parse_answer)
REPAIRING = Preset("standard with repaired corners", partial(parse_answer, repair=True))
PRESETS = {
    preset.name: preset
    for preset in (
        STANDARD,
        Preset("feb2025-r1", _read_r1_on_one_line, inclusive_iou),
        Preset("feb2025-sft", _read_feb_sft, inclusive_iou),
        Preset("mar2025", _read_mar, inclusive_iou),
    )
}
