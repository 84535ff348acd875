"""Boxes: IoU worked by hand, coordinate spaces there and back, Qwen's resize."""

import numpy as np
import pytest
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as qwen_resize

from vlm_r1.rec.boxes import (
    COORDINATE_SPACES,
    from_original,
    iou,
    is_hit,
    smart_resize,
    to_original,
)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [0, 0, 10, 5], 0.5),  # 50 / 100
        ([0, 0, 10, 10], [5, 5, 15, 15], 25 / 175),
        ([0, 0, 10, 10], [10, 0, 20, 10], 0.0),  # they touch only
        ([10, 10, 0, 0], [0, 0, 10, 10], 0.0),  # reversed corners have no area
        ([np.nan] * 4, [0, 0, 10, 10], 0.0),
    ],
)
def test_iou_by_hand(a, b, expected):
    assert iou(np.array(a), np.array(b)) == pytest.approx(expected)


def test_iou_of_many_rows_is_row_by_row():
    a = np.array([[0, 0, 10, 10], [0, 0, 2, 2]])
    b = np.array([[0, 0, 10, 5], [1, 1, 3, 3]])
    assert iou(a, b) == pytest.approx([0.5, 1 / 7])


def test_an_iou_of_exactly_one_half_is_no_hit():
    assert not is_hit(iou(np.array([0, 0, 10, 10]), np.array([0, 0, 10, 5])))
    assert is_hit(0.500001)


def test_resize_examples_of_the_qwen_processor():
    budget = (3136, 12_845_056)
    assert smart_resize(480, 640, *budget) == (476, 644)
    assert smart_resize(1080, 1920, *budget) == (1092, 1932)
    assert smart_resize(80, 80, *budget) == (84, 84)
    assert smart_resize(60, 90, *budget) == (56, 84)


@pytest.mark.parametrize("budget", [(3136, 12_845_056), (3136, 262_144), (200_704, 401_408)])
@pytest.mark.parametrize("size", [(28, 28), (60, 90), (427, 640), (1080, 1920), (3000, 41)])
def test_resize_agrees_with_transformers(size, budget):
    expected = qwen_resize(*size, factor=28, min_pixels=budget[0], max_pixels=budget[1])
    assert smart_resize(*size, *budget) == expected


@pytest.mark.parametrize("coordinate_space", COORDINATE_SPACES)
def test_a_box_survives_the_way_to_a_coordinate_space_and_back(coordinate_space):
    box = np.array([[8.0, 12.0, 40.0, 30.0]])
    sizes = np.array([[60, 90]]), np.array([[56, 84]])
    assert to_original(
        from_original(box, coordinate_space, *sizes), coordinate_space, *sizes
    ) == pytest.approx(box)


def test_coordinate_spaces_by_hand():
    """A 90 x 60 image that the model sees as 84 x 56."""
    box, sizes = np.array([45.0, 30.0, 90.0, 60.0]), ((60, 90), (56, 84))
    assert from_original(box, "input", *sizes) == pytest.approx([42, 28, 84, 56])
    assert from_original(box, "thousand", *sizes) == pytest.approx([500, 500, 1000, 1000])
    assert from_original(box, "unit", *sizes) == pytest.approx([0.5, 0.5, 1, 1])


def test_an_unknown_coordinate_space_is_named():
    with pytest.raises(ValueError, match="got coordinate space 'inches'"):
        to_original(np.zeros(4), "inches", (1, 1), (1, 1))
