"""Ways to read and measure an answer: ours, and VLM-R1's own at three dates. Text and numpy only.

VLM-R1 reads R1 completions and SFT answers by different rules and measures boxes with inclusive
pixels. Its presets exist so that its stated numbers can be found again; `standard` is what both
methods are judged by. Rules: om-ai-lab/VLM-R1, src/eval/test_rec_r1.py and test_rec_baseline.py.
All readers are linear in the text, which VLM-R1's patterns are not; a test holds them equal.
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
        read: (completion, coordinate space the model speaks in) -> its box, or why there is none.
        overlap: IoU (n,) of predicted and true boxes (n, 4), xyxy in original pixels; 0 where a
            box is NaN.
    """

    name: str
    read: Callable[[str, str], Parsed | Unparsed]
    overlap: Callable[[np.ndarray, np.ndarray], np.ndarray] = iou


def preset_named(name: str, repair: bool = False) -> Preset:
    """The preset called `name`; `REPAIRING` for `standard` with `repair`.

    Raises:
        ConfigError: there is no such preset, or it repairs no corners.
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

    The intersection is counted in inclusive pixels (x2 - 1, then + 1) and must be wider and higher
    than one pixel; the areas are plain. Above that it equals `boxes.iou`. NaN rows give 0.
    """
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., 2:] - 1, b[..., 2:] - 1)
    inter = np.where((low < high).all(axis=-1), (high - low + 1).prod(axis=-1), 0.0)
    with np.errstate(all="ignore"):  # a model may write numbers whose area no float holds
        areas = [(box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (a, b)]
        return np.where(inter > 0, inter / (areas[0] + areas[1] - inter), 0.0)


def _read_r1_on_one_line(completion: str, coordinate_space: str) -> Parsed | Unparsed:
    """R1 until 2025-02-27: the tag and all that is in it must stand on one line."""
    for line in completion.split("\n"):
        _, _, rest = line.partition("<answer>")
        body, closed, _ = rest.partition("</answer>")
        if closed:
            return _last_integer_box(body, coordinate_space)
    return Unparsed("no_answer")


def _read_r1(completion: str, coordinate_space: str) -> Parsed | Unparsed:
    """R1 since then: the first closed tag, over any number of lines."""
    _, _, rest = completion.partition("<answer>")
    body, closed, _ = rest.partition("</answer>")
    return _last_integer_box(body, coordinate_space) if closed else Unparsed("no_answer")


def _last_integer_box(body: str, coordinate_space: str) -> Parsed | Unparsed:
    """Four non-negative integers between the first `{` and the last `}`: the last such box."""
    first, last = body.find("{"), body.rfind("}")
    boxes = _INTEGER_BOX.findall(body, first + 1, last) if 0 <= first < last else []
    return (
        _finite(boxes[-1], coordinate_space, "answer", len(boxes)) if boxes else Unparsed("no_box")
    )


def _read_first_floats(completion: str, coordinate_space: str) -> Parsed | Unparsed:
    """The baseline's script since 2025-03-24: the first four numbers in brackets anywhere."""
    boxes = _FLOAT_BOX.findall(completion)
    return _finite(boxes[0], coordinate_space, "text", len(boxes)) if boxes else Unparsed("no_box")


def _read_feb_sft(completion: str, coordinate_space: str) -> Parsed | Unparsed:
    """February's: a box of numbers up to 1 is taken as 0-1, cut to whole thousandths."""
    answer = _read_first_floats(completion, coordinate_space)
    if isinstance(answer, Unparsed) or max(answer.box) > 1:
        return answer
    thousandths = [1000 * side for side in answer.box]
    if not all(map(math.isfinite, thousandths)):
        return Unparsed("number_too_large")
    box = tuple(float(math.trunc(side)) for side in thousandths)
    return Parsed(box, "thousand", "text", answer.boxes)


def _read_mar(completion: str, coordinate_space: str) -> Parsed | Unparsed:
    """March had a script a method; a completion with a tag is read as R1's script reads it."""
    tagged = "<think>" in completion or "<answer>" in completion
    return (_read_r1 if tagged else _read_first_floats)(completion, coordinate_space)


def _finite(
    numbers: tuple[str, str, str, str], coordinate_space: str, where: str, boxes: int
) -> Parsed | Unparsed:
    """The box as it is written, reversed or not; VLM-R1 stops at numbers that no float holds."""
    box = tuple(map(float, numbers))
    if not all(map(math.isfinite, box)):
        return Unparsed("number_too_large")
    return Parsed(box, coordinate_space, where, boxes)


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
