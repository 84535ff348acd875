"""evaluation/slices.py: bounds by hand, what a log does not tell, and every slicing a partition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_r1.evaluation.slices import (
    DIMENSIONS,
    MAX_CATEGORIES,
    Slicing,
    expression_of,
    has_spatial_word,
    slice_rows,
)
from vlm_r1.rec.prompts import question_for
from vlm_r1.rec.results import ResultRow


def row(phrase: str = "a cup", box: tuple = (0, 0, 10, 10), **more) -> ResultRow:
    return ResultRow(
        question=question_for(phrase),
        ground_truth=box,
        model_output="",
        extracted_answer=None,
        correct=0,
        **more,
    )


def found(slicing: Slicing, dimension: str) -> dict[str, list[int]]:
    return {s.name: s.rows.tolist() for s in slicing.slices if s.dimension == dimension}


def test_box_size_is_a_share_of_the_image_where_its_size_is_told():
    """Boxes of 100 px2 in images of 10000, 1000, 999 and 400 px2: 1, 10, 10.01 and 25 percent."""
    sizes = [(100, 100), (10, 100), (27, 37), (20, 20)]
    slicing = slice_rows([row(image_size=size) for size in sizes], "d")
    assert found(slicing, "box_area_percent") == {
        "under 3": [0],
        "10 to 20": [1, 2],
        "20 and more": [3],
    }
    assert slicing.left_out["box_area_px2"] == "shown as a share of the image instead"


def test_box_size_is_in_pixels_by_cocos_bounds_where_a_log_tells_no_sizes():
    rows = [row(box=(0, 0, side, side)) for side in (31.9, 32, 95.9, 96)]
    slicing = slice_rows([*rows, row(image_size=(9, 9))], "d")
    assert found(slicing, "box_area_px2") == {
        "small, under 32 x 32": [0, 4],
        "medium, to 96 x 96": [1, 2],
        "large": [3],
    }
    assert "sizes of its images" in slicing.left_out["box_area_percent"]


def test_aspect_ratio_is_width_over_height_of_the_true_box():
    rows = [row(box=(0, 0, w, h)) for w, h in ((1, 2), (2, 3), (1, 1), (3, 2))]
    assert found(slice_rows(rows, "d"), "box_aspect_ratio") == {
        "under 2:3": [0],
        "2:3 to 3:2": [1, 2],
        "3:2 and more": [3],
    }


def test_words_are_counted_in_the_phrase_and_not_in_the_question():
    phrases = ["one two", "one two three", "a b c d", "a b c d e", "a b c d e f g h i"]
    assert found(slice_rows([row(p) for p in phrases], "d"), "phrase_words") == {
        "1 or 2": [0],
        "3 or 4": [1, 2],
        "5 to 8": [3],
        "9 and more": [4],
    }
    assert expression_of("where is it?") == "where is it?"


@pytest.mark.parametrize(
    ("phrase", "spatial"),
    [
        ("the cup on the LEFT", True),
        ("2nd from right.", True),
        ("bright cup", False),  # holds "right", but not as a word
        ("a jacket over there", False),
        ("disc lower down than the crate", True),
    ],
)
def test_spatial_words_are_whole_words(phrase, spatial):
    assert has_spatial_word(phrase) is spatial


def test_objects_named_are_different_true_boxes_of_one_image():
    boxes = [(0, 0, 9, 9), (0, 0, 9, 9), (1, 1, 9, 9), (0, 0, 9, 9)]
    rows = [row(box=b, image=name) for b, name in zip(boxes, "aaab", strict=True)]
    assert found(slice_rows(rows, "d"), "objects_named") == {"1": [3], "2": [0, 1, 2]}


def test_category_is_the_rows_own_and_the_rare_ones_are_one_slice():
    kinds = ["dog"] * 3 + ["cat"] * 2 + [f"rare {i:02d}" for i in range(MAX_CATEGORIES)]
    slices = found(slice_rows([row(category=kind) for kind in kinds], "d"), "category")
    assert list(slices)[:3] == ["dog", "cat", "rare 00"]
    assert len(slices["others"]) == 2
    assert len(slices) == MAX_CATEGORIES + 1


def test_a_split_is_the_rows_own_or_in_the_datasets_name():
    own = slice_rows([row(split="testA"), row(split="testB")], "refcoco_val")
    assert found(own, "split") == {"testA": [0], "testB": [1]}
    assert found(slice_rows([row(), row()], "refcoco_testA"), "split") == {"testA": [0, 1]}
    assert "split" in slice_rows([row()], "refgta_subsample").left_out


def test_what_a_log_does_not_tell_is_left_out_by_name():
    """VLM-R1's logs have questions, boxes and answers alone."""
    slicing = slice_rows([row()], "refgta_subsample")
    assert set(slicing.left_out) == {"box_area_percent", "objects_named", "category", "split"}
    assert {s.dimension for s in slicing.slices} == set(DIMENSIONS) - set(slicing.left_out)


@given(st.lists(st.tuples(st.text(max_size=30), st.integers(1, 400), st.integers(1, 400))))
def test_the_slices_of_a_dimension_hold_every_row_once(drawn):
    rows = [row(p, (0, 0, w, h), image=str(w % 3), image_size=(400, 400)) for p, w, h in drawn]
    slicing = slice_rows(rows, "refcoco_val")
    for dimension in {s.dimension for s in slicing.slices}:
        parts = [s.rows for s in slicing.slices if s.dimension == dimension]
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(rows)))
        assert all(len(part) for part in parts)
