"""presets.py: VLM-R1's own parsers in linear time, held against its patterns; its pixels."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linear import ADVERSARIES, LINEAR, slowdown
from vlm_r1.errors import ConfigError
from vlm_r1.rec.boxes import iou
from vlm_r1.rec.parsing import Parsed, Unparsed
from vlm_r1.rec.vlm_r1_parsers import PRESETS, inclusive_iou, preset_named

# VLM-R1's patterns (src/eval/test_rec_r1.py, test_rec_baseline.py), as it applies them.
R1_BOX = r"\{.*\[(\d+),\s*(\d+),\s*(\d+),\s*(\d+)]\s*.*\}"
FLOAT = r"(\s*-?\d*\.?\d+\s*)"
FLOAT_BOX = r"\[" + ",".join([FLOAT] * 4) + r"\]"
NO_BOX = (0, 0, 0, 0)

PIECES = [
    *("<answer>", "</answer>", "<think>", "</think>", "{", "}", "\n", " ", "[", "]", ","),
    *("-", ".", "1", "23", "0.5", '{"bbox_2d": [1, 2, 3, 4]}', "[5,6,7,8]", "[1.5, -2, .25, 4]"),
    *("[0.1, 0.2, 0.3, 1]", "[ 1 , 2,3,4]", "[1,\n2, 3, 4]", "[9, 9, 9, 9", ", 9]"),
]
pieces = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
texts = st.one_of(pieces, pieces.map(lambda inner: f"<answer>{{{inner}}}</answer>"))


def r1_twin(text: str, flags: int) -> tuple:
    tag = re.search(r"<answer>(.*?)</answer>", text, flags)
    found = re.search(R1_BOX, tag.group(1).strip(), flags) if tag else None
    return tuple(map(int, found.groups())) if found else NO_BOX


def baseline_twin(text: str, thousandths: bool) -> tuple:
    found = re.search(FLOAT_BOX, text)
    box = tuple(map(float, found.groups())) if found else NO_BOX
    if found and thousandths and all(side <= 1 for side in box):
        return tuple(int(side * 1000) for side in box)
    return box


def mar_twin(text: str) -> tuple:
    tagged = "<think>" in text or "<answer>" in text
    return r1_twin(text, re.DOTALL) if tagged else baseline_twin(text, thousandths=False)


def iou_twin(a: tuple, b: tuple) -> float:
    """Inclusive pixels, box by box."""
    x1, y1, x2, y2 = max(a[0], b[0]), max(a[1], b[1]), min(a[2] - 1, b[2] - 1), min(a[3], b[3]) - 1
    inter = (x2 - x1 + 1) * (y2 - y1 + 1) if x1 < x2 and y1 < y2 else 0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if inter else 0.0


TWINS = {
    "feb2025-r1": lambda text: r1_twin(text, 0),
    "feb2025-sft": lambda text: baseline_twin(text, thousandths=True),
    "mar2025": mar_twin,
}


def box_of(name: str, text: str) -> tuple:
    answer = PRESETS[name].read(text, "original")
    return answer.box if isinstance(answer, Parsed) else NO_BOX


@pytest.mark.parametrize("name", TWINS)
@settings(max_examples=500)
@given(text=texts)
def test_a_preset_reads_what_vlm_r1_reads(name, text):
    assert box_of(name, text) == TWINS[name](text)


@pytest.mark.parametrize("name", TWINS)
def test_the_texts_of_the_twins_hold_boxes(name):
    """Else equal twins would tell nothing: of these, every preset reads some."""
    text = '<answer>x {"bbox_2d": [1, 2, 3, 4]}</answer>'
    assert box_of(name, text) == TWINS[name](text) == (1, 2, 3, 4)


def test_february_r1_wants_tag_and_box_on_one_line_and_march_does_not():
    text = '<answer>\n{"bbox_2d": [1, 2, 3, 4]}\n</answer>'
    assert PRESETS["feb2025-r1"].read(text, "original") == Unparsed("no_answer")
    assert box_of("mar2025", text) == (1, 2, 3, 4)


def test_r1_presets_take_the_last_box_and_standard_the_first():
    text = '<answer>{"a": [1, 2, 3, 4], "b": [5, 6, 7, 8]}</answer>'
    assert box_of("feb2025-r1", text) == box_of("mar2025", text) == (5, 6, 7, 8)
    assert box_of("standard", text) == (1, 2, 3, 4)
    assert PRESETS["mar2025"].read(text, "original").boxes == 2


def test_february_sft_reads_the_thought_and_takes_small_numbers_for_shares():
    assert box_of("feb2025-sft", "<think>[1, 2, 3, 4]</think>[5, 6, 7, 8]") == (1, 2, 3, 4)
    shares = PRESETS["feb2025-sft"].read("[0.1, 0.25, 0.5004, 1]", "original")
    assert (shares.box, shares.coordinate_space) == ((100, 250, 500, 1000), "thousand")
    assert PRESETS["mar2025"].read("[0.1, 0.25, 0.5, 1]", "original").coordinate_space == "original"


def test_vlm_r1_reads_reversed_corners_and_standard_repairs_them_when_asked():
    assert box_of("mar2025", "[30, 2, 1, 40]") == (30, 2, 1, 40)
    assert box_of("standard", "[30, 2, 1, 40]") == NO_BOX
    repairing = preset_named("standard", repair=True)
    assert repairing.read("[30, 2, 1, 40]", "original").box == (1, 2, 30, 40)


@pytest.mark.parametrize(("name", "repair"), [("mar2026", False), ("mar2025", True)])
def test_a_preset_that_is_not_there_is_refused(name, repair):
    with pytest.raises(ConfigError, match="need one of standard, feb2025-r1, feb2025-sft, mar2025"):
        preset_named(name, repair)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000, "-" + "9" * 308])
def test_numbers_beyond_all_images_do_not_raise(name, number):
    for text in (f"[1, 2, 3, {number}]", f"<answer>{{[1, 2, 3, {number}]}}</answer>"):
        assert isinstance(PRESETS[name].read(text, "original"), Parsed | Unparsed)


@pytest.mark.parametrize("name", PRESETS)
@given(text=st.text(max_size=200))
def test_no_text_of_any_script_makes_a_preset_raise(name, text):
    for wrapped in (text, f"<answer>{{{text}}}</answer>", f"[{text}]"):
        assert isinstance(PRESETS[name].read(wrapped, "unit"), Parsed | Unparsed)


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("piece", ADVERSARIES.values(), ids=ADVERSARIES)
@pytest.mark.parametrize("wrap", ["{}", "[{}", "<answer>{{}}</answer>"])
def test_four_times_the_text_takes_four_times_as_long(name, piece, wrap):
    assert slowdown(lambda text: PRESETS[name].read(text, "original"), piece, wrap) < LINEAR


def test_inclusive_iou_by_hand():
    """4 x 4 in 8 x 8 pixels: 16 / 64. A shared column of one pixel counts nothing."""
    a = np.array([[0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4], [np.nan] * 4])
    b = np.array([[0, 0, 8, 8], [3, 0, 7, 4], [0, 0, 4, 4], [0, 0, 4, 4]], dtype=float)
    assert inclusive_iou(a, b).tolist() == [0.25, 0, 1, 0]
    assert iou(a, b)[1] == pytest.approx(4 / 28)


sides = st.integers(0, 40)
corners = st.tuples(sides, sides, sides, sides)


@given(a=corners, b=corners)
def test_inclusive_iou_is_vlm_r1s(a, b):
    found = inclusive_iou(np.array([a], dtype=float), np.array([b], dtype=float))
    assert found[0] == pytest.approx(iou_twin(a, b))
