"""The parser: every shape of answer that models give, and texts that nobody meant as answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.linear import ADVERSARIES, LINEAR, slowdown
from vlm_r1.rec.parsing import Parsed, Unparsed, box_in_original, parse_answer


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ('```json\n[\n\t{"bbox_2d": [1, 2, 30, 40], "label": "x"}\n]\n```', (1, 2, 30, 40)),
        ("<think>hm</think><answer>[1, 2, 30, 40]</answer>", (1, 2, 30, 40)),
        ('<think>hm</think>\n<answer>{"bbox_2d": [1,2,30,40]}</answer>', (1, 2, 30, 40)),
        ("The box is [1.5, 2, 30.25, 40].", (1.5, 2, 30.25, 40)),
        ("[-3, -2, 30, 40]", (-3, -2, 30, 40)),
        ("[ 1 , 2 , 30 , 40 ]", (1, 2, 30, 40)),
        ("[[1, 2, 30, 40]]", (1, 2, 30, 40)),
        ("<answer>[1, 2, 30, 40]", (1, 2, 30, 40)),  # cut off before the tag closed
        ('{"bbox_2d": [1, 2, 30, 40]}', (1, 2, 30, 40)),
        ("[10., 20., 30., 40.]", (10, 20, 30, 40)),
        ("[.1, .2, .30000000000000004, 0.4]", (0.1, 0.2, 0.30000000000000004, 0.4)),
        (
            "a thought that the prompt opened: [9, 9, 10, 10] </think> [1, 2, 30, 40]",
            (1, 2, 30, 40),
        ),
        ("<think>a</think><think>[9, 9, 10, 10]</think>[1, 2, 30, 40]", (1, 2, 30, 40)),
        ("[1, 2, 30, 40] <think>sure?</think>", (1, 2, 30, 40)),
    ],
)
def test_a_box_is_read_from(text, box):
    parsed = parse_answer(text)
    assert isinstance(parsed, Parsed)
    assert parsed.box == box


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("no idea", "no_box"),
        ("[1, 2, 3]", "no_box"),
        ("[1, 2, 3, 4, 5]", "no_box"),
        ("[a, b, c, d]", "no_box"),
        ("<answer></answer> [1, 2, 30, 40]", "no_box"),  # outside the tags is not the answer
        ("<think>it is [1, 2, 30, 40]", "unclosed_think"),
        ("<think>it is [1, 2, 30, 40]</think> done", "no_box"),
        ("[30, 2, 1, 40]", "reversed_corners"),
        ("[1, 40, 30, 2]", "reversed_corners"),
        ("[1, 2, 1, 40]", "reversed_corners"),
        ("[NaN, 2, 30, 40]", "no_box"),
        ("[1, 2, Infinity, 40]", "no_box"),
        ("[1, 2, 30, 123456789]", "no_box"),
        ("[1, 2, 30, 40]</think>", "no_box"),  # all of it is a thought that the prompt opened
    ],
)
def test_no_box_is_read_and_the_reason_told(text, reason):
    assert parse_answer(text) == Unparsed(reason)


def test_the_first_of_several_boxes_counts_and_they_are_counted():
    parsed = parse_answer("<answer>[1, 2, 30, 40] or [5, 6, 7, 8]</answer>")
    assert parsed == Parsed((1, 2, 30, 40), "original", "answer", boxes=2)


def test_a_box_in_the_thought_is_not_the_answer():
    parsed = parse_answer("<think>maybe [9, 9, 10, 10]</think> so [1, 2, 30, 40]")
    assert parsed == Parsed((1, 2, 30, 40), "original", "text", boxes=1)


@pytest.mark.parametrize("text", ["[30, 2, 1, 40]", "[1, 40, 30, 2]", "[30, 40, 1, 2]"])
def test_reversed_corners_are_put_in_order_when_asked_for(text):
    parsed = parse_answer(text, repair=True)
    assert parsed == Parsed((1, 2, 30, 40), "original", "text", boxes=1, repaired=True)


def test_a_box_without_width_cannot_be_repaired_and_a_sound_one_is_not():
    assert parse_answer("[1, 2, 1, 40]", repair=True) == Unparsed("reversed_corners")
    assert parse_answer("[1, 2, 30, 40]", repair=True).repaired is False


def test_the_box_goes_to_original_pixels_from_the_coordinate_space_it_is_read_in():
    parsed = parse_answer("[100, 100, 500, 1000]", "thousand")
    assert parsed.coordinate_space == "thousand"
    box = box_in_original(parsed, image_size=(200, 400), input_size=None)
    assert box.tolist() == [40, 20, 200, 200]
    assert np.isnan(box_in_original(Unparsed("no_box"), None, None)).all()


@given(st.text(alphabet="<>/thinkanswer[]0123456789,.- {}\"'", max_size=300), st.booleans())
def test_no_text_makes_the_parser_raise(text, repair):
    assert isinstance(parse_answer(text, repair=repair), Parsed | Unparsed)


@given(st.text(max_size=300))
def test_no_text_of_any_script_makes_the_parser_raise(text):
    assert isinstance(parse_answer(f"[{text}]"), Parsed | Unparsed)


@given(
    st.lists(
        st.floats(-9e6, 9e6, allow_nan=False).map(lambda x: round(x, 9)), min_size=4, max_size=4
    )
)
def test_every_box_that_is_written_is_read_back(numbers):
    x1, y1, x2, y2 = numbers
    text = f"<think>so</think> <answer>[{x1:.9f}, {y1:.9f}, {x2:.9f}, {y2:.9f}]</answer>"
    parsed = parse_answer(text, repair=True)
    if x1 == x2 or y1 == y2:
        assert parsed == Unparsed("reversed_corners")
    else:
        assert sorted(parsed.box[::2]) == sorted([x1, x2])
        assert sorted(parsed.box[1::2]) == sorted([y1, y2])


@pytest.mark.parametrize("piece", ADVERSARIES.values(), ids=ADVERSARIES)
@pytest.mark.parametrize("wrap", ["{}", "[{}", "<answer>{}"])
def test_four_times_the_text_takes_four_times_as_long(piece, wrap):
    assert slowdown(parse_answer, piece, wrap) < LINEAR
