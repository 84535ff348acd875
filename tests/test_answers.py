"""The parser: every shape of answer that models give, and texts that nobody meant as answers."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_r1.answers import Parsed, Unparsed, parse_answer


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
    ],
)
def test_no_box_is_read_and_the_reason_told(text, reason):
    assert parse_answer(text) == Unparsed(reason)


def test_the_first_of_several_boxes_counts_and_they_are_counted():
    parsed = parse_answer("<answer>[1, 2, 30, 40] or [5, 6, 7, 8]</answer>")
    assert parsed == Parsed((1, 2, 30, 40), "answer", 2)


def test_a_box_in_the_thought_is_not_the_answer():
    parsed = parse_answer("<think>maybe [9, 9, 10, 10]</think> so [1, 2, 30, 40]")
    assert parsed == Parsed((1, 2, 30, 40), "text", 1)


@given(st.text(alphabet="<>/thinkanswer[]0123456789,.- {}\"'", max_size=300))
def test_no_text_makes_the_parser_raise(text):
    assert isinstance(parse_answer(text), Parsed | Unparsed)


@pytest.mark.parametrize("piece", ["[", "[1,", "[1, 2, 3, ", "<think>", "1" * 50, "[ "])
def test_a_megabyte_is_read_in_linear_time(piece):
    text = piece * (1_000_000 // len(piece))
    started = time.perf_counter()
    parse_answer(text)
    assert time.perf_counter() - started < 2.0
