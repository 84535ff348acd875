"""evaluation/correction.py: what one scale and offset per axis recovers, by simulation."""

import numpy as np
import pytest

from vlm_r1.errors import ResultError
from vlm_r1.evaluation.coordinate_correction import (
    Affine,
    Correction,
    accuracy_recovered,
    correct_boxes,
    decompose_difference,
)
from vlm_r1.evaluation.coordinate_space_check import WrittenBoxes
from vlm_r1.evaluation.score_text import coordinate_space_json
from vlm_r1.rec.boxes import iou

FEW = 0.95
SKEW = Affine(scale=(1.05, 0.93), offset=(20.0, -15.0))  # what a model writes, of what is true
WIDTH, HEIGHT = 1920, 1080


def boxes_in_image(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes (count, 4) of a twentieth to two fifths of a side, anywhere in 1920 x 1080."""
    image = np.array([WIDTH, HEIGHT])
    sides = rng.uniform(0.05, 0.4, (count, 2)) * image
    corner = rng.uniform(0, 1, (count, 2)) * (image - sides)
    return np.concatenate([corner, corner + sides], axis=1)


def answers(seed: int, count: int = 400, wrong: float = 0.3, noise: float = 0.05) -> tuple:
    """(boxes, truth, images) of a model in the right coordinate space, two phrases an image.

    `wrong` of the boxes are on something else; corners of the others stray by `noise` of a side.
    """
    rng = np.random.default_rng(seed)
    truth = boxes_in_image(rng, count)
    boxes = truth + rng.normal(0, noise, truth.shape) * np.tile(truth[:, 2:] - truth[:, :2], 2)
    elsewhere = rng.random(count) < wrong
    boxes[elsewhere] = boxes_in_image(rng, elsewhere.sum())
    return boxes, truth, np.arange(count) // 2


def accuracy(hits: np.ndarray) -> float:
    return 100 * float(hits.mean())


# --- the right coordinate space


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.02, 0.15])
def test_boxes_in_the_right_coordinate_space_stay_where_they_are(seed, noise):
    boxes, truth, images = answers(seed, noise=noise)
    found = correct_boxes(boxes, truth, images)
    assert found.scale == pytest.approx((1, 1), abs=0.01)
    assert found.offset == pytest.approx((0, 0), abs=8)
    _, low, high, _ = accuracy_recovered(found, images, FEW)
    assert low <= 0 <= high


def test_small_samples_are_left_alone():
    """Four numbers fitted to a dozen boxes would fit noise: hits of 24 rows, in forty trials."""
    changes = []
    for seed in range(40):
        found = correct_boxes(*answers(seed, count=24, noise=0.15))
        changes.append(int(found.hit.sum()) - int(found.raw_hit.sum()))
    assert min(changes) >= -2
    assert changes.count(0) >= 35


# --- another coordinate space


@pytest.mark.parametrize("wrong", [0.0, 0.3, 0.6])
def test_a_scale_and_an_offset_are_found_whatever_the_wrong_groundings_say(wrong):
    boxes, truth, images = answers(7, wrong=wrong)
    found = correct_boxes(SKEW.apply(boxes), truth, images)
    assert found.scale == pytest.approx((1 / 1.05, 1 / 0.93), rel=0.01)
    assert found.offset == pytest.approx((-20 / 1.05, 15 / 0.93), abs=6)
    right_space = correct_boxes(boxes, truth, images)
    assert accuracy(found.hit) == pytest.approx(accuracy(right_space.raw_hit), abs=1.5)
    assert accuracy_recovered(found, images, FEW).low > 10
    assert found.reason is None


def test_wrong_groundings_that_agree_with_each_other_do_not_steer_it():
    """Two of five answers name the thing to the right, 300 px away."""
    boxes, truth, images = answers(3, wrong=0.0)
    elsewhere = np.arange(len(boxes)) % 5 < 2
    boxes[elsewhere] += (300, 0, 300, 0)
    found = correct_boxes(SKEW.apply(boxes), truth, images)
    assert found.scale == pytest.approx((1 / 1.05, 1 / 0.93), rel=0.01)
    assert accuracy(found.hit[~elsewhere]) > 98


@pytest.mark.parametrize("size", [(1000, 1000), (1, 1)])
def test_coordinate_spaces_far_from_pixels_are_reached(size):
    """0-1000 and 0-1, read as pixels of one image size."""
    boxes, truth, images = answers(5)
    per_pixel = Affine(scale=(size[0] / WIDTH, size[1] / HEIGHT))
    found = correct_boxes(per_pixel.apply(boxes), truth, images)
    assert found.scale == pytest.approx((WIDTH / size[0], HEIGHT / size[1]), rel=0.01)
    assert accuracy(found.raw_hit) < 5
    assert accuracy(found.hit) > 65


def test_a_box_is_corrected_by_what_was_fitted_on_other_images():
    """A true box is moved: nothing changes on its own half of the images, all on the other."""
    boxes, truth, images = answers(2, wrong=0.0)
    boxes = SKEW.apply(boxes)
    before = correct_boxes(boxes, truth, images).boxes
    moved = truth.copy()
    moved[10] += 30
    changed = (correct_boxes(boxes, moved, images).boxes != before).any(axis=1)
    assert changed.mean() == 0.5
    assert not changed[10]
    assert not changed[11]  # the same image
    assert (changed[::2] == changed[1::2]).all()


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does():
    boxes, truth, images = answers(2)
    boxes = SKEW.apply(boxes)
    order = np.random.default_rng(0).permutation(len(boxes))
    found = correct_boxes(boxes, truth, images)
    turned = correct_boxes(boxes[order], truth[order], images[order])
    assert turned.halves == found.halves
    assert (turned.boxes == found.boxes[order]).all()
    assert correct_boxes(boxes, truth, images, seed=1).halves != found.halves


def test_images_may_be_named_in_any_way():
    boxes, truth, images = answers(2)
    names = np.array([f"{i:04d}.png" for i in images])
    by_name = correct_boxes(SKEW.apply(boxes), truth, names)
    assert by_name.halves == correct_boxes(SKEW.apply(boxes), truth, images).halves


def test_unparsed_rows_stay_unparsed():
    boxes, truth, images = answers(2)
    boxes = SKEW.apply(boxes)
    boxes[::3] = np.nan
    found = correct_boxes(boxes, truth, images)
    assert (np.isnan(found.boxes) == np.isnan(boxes)).all()
    assert not found.hit[::3].any()
    assert found.scale == pytest.approx((1 / 1.05, 1 / 0.93), rel=0.01)


# --- nothing to be found


def same_box_always(boxes: np.ndarray) -> np.ndarray:
    return np.tile([500.0, 500.0, 700.0, 700.0], (len(boxes), 1))


def another_thing(boxes: np.ndarray) -> np.ndarray:
    return boxes_in_image(np.random.default_rng(99), len(boxes))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda boxes: np.full_like(boxes, np.nan), "a half has boxes on 0 images"),
        (lambda boxes: boxes[:, [2, 3, 0, 1]], "a half has boxes on 0 images"),  # reversed
        (another_thing, "no scale and offset fit better than one constant box"),
        (same_box_always, "no scale and offset fit better than one constant box"),
        (lambda boxes: boxes, "no scale and offset fit better than the boxes as they are"),
    ],
    ids=["all unparsed", "reversed corners", "all wrong", "constant", "all right"],
)
def test_where_nothing_can_be_corrected_the_reason_is_said(change, reason):
    _, truth, images = answers(0, count=100)
    boxes = change(truth)
    found = correct_boxes(boxes, truth, images)
    assert found.reason.startswith(reason)
    assert found.halves == (Affine(), Affine())
    assert np.array_equal(found.boxes, boxes, equal_nan=True)
    assert (found.hit == found.raw_hit).all()


@pytest.mark.parametrize("images", [[0] * 20, list(range(7)) + [7] * 13])
def test_few_images_are_not_fitted(images):
    boxes, truth, _ = answers(0, count=20, wrong=0.0)
    found = correct_boxes(SKEW.apply(boxes), truth, np.array(images))
    assert "images, fewer than 5" in found.reason
    assert (found.hit == found.raw_hit).all()


def test_true_boxes_in_one_place_teach_nothing():
    boxes, _, images = answers(0, count=40)
    truth = np.tile([100.0, 100.0, 300.0, 300.0], (40, 1))
    found = correct_boxes(boxes, truth, images)
    assert found.reason == "no scale and offset fit better than one constant box"


# --- the split


def hits(raw: list[int], corrected: list[int]) -> Correction:
    raw, corrected = np.array(raw, dtype=bool), np.array(corrected, dtype=bool)
    return Correction(np.zeros((len(raw), 4)), raw, corrected, (Affine(), Affine()), None)


def test_split_by_hand():
    """From 4 to 1 of 5 right, and to 3 with corrected coordinates: -20 grounding, -40 the rest."""
    start = hits([1, 1, 1, 1, 0], [1, 1, 1, 1, 0])
    end = hits([1, 0, 0, 0, 0], [1, 1, 1, 0, 0])
    found = decompose_difference(start, end, np.arange(5), FEW)
    assert found.total.mean == pytest.approx(-60)
    assert found.coordinates.mean == pytest.approx(-40)
    assert found.grounding.mean == pytest.approx(-20)
    assert found.grounding.low < -20 < found.grounding.high


def test_the_parts_add_up_and_the_sum_is_paired():
    boxes, truth, images = answers(1)
    start = correct_boxes(boxes, truth, images)
    worse, _, _ = answers(1, wrong=0.45)
    end = correct_boxes(SKEW.apply(worse), truth, images)
    found = decompose_difference(start, end, images, FEW)
    assert found.coordinates.mean + found.grounding.mean == pytest.approx(found.total.mean)
    assert found.total.mean == pytest.approx(accuracy(end.raw_hit) - accuracy(start.raw_hit))
    assert found.coordinates.high < -10
    assert found.grounding.high < 0
    lost = accuracy_recovered(start, images, FEW).mean - accuracy_recovered(end, images, FEW).mean
    assert found.coordinates.mean == pytest.approx(lost)


# --- the block of `score --json`


def test_the_coordinate_space_block_is_what_score_prints():
    boxes, truth, images = answers(4)
    sizes = np.tile((HEIGHT, WIDTH), (len(boxes), 1))
    block = coordinate_space_json(WrittenBoxes(boxes, truth, images, "input", sizes, sizes), FEW)
    found = correct_boxes(boxes, truth, images)
    assert list(block) == [
        "assumed", "best", "corrected_accuracy", "corrected_ci_low", "corrected_ci_high",
    ]  # fmt: skip
    assert (block["assumed"], block["best"]) == ("input", "input")
    assert block["corrected_accuracy"] == pytest.approx(accuracy(found.hit))
    assert block["corrected_ci_low"] < block["corrected_accuracy"] < block["corrected_ci_high"]


def test_the_block_names_the_better_coordinate_space_and_corrects_what_was_assumed():
    boxes, truth, images = answers(4)
    written = Affine(scale=(1000 / WIDTH, 1000 / HEIGHT)).apply(boxes)
    sizes = np.tile((HEIGHT, WIDTH), (len(boxes), 1))
    block = coordinate_space_json(WrittenBoxes(written, truth, images, "original", sizes), FEW)
    assert (block["assumed"], block["best"]) == ("original", "thousand")
    assert block["corrected_accuracy"] > 65


def test_the_coordinate_space_block_of_one_image_or_without_sizes():
    truth = np.array([[0.0, 0.0, 10.0, 10.0]] * 3)
    block = coordinate_space_json(WrittenBoxes(truth, truth, np.zeros(3), "original"))
    assert list(block.values()) == ["original", "original", 100.0, None, None]
    with pytest.raises(ResultError, match="without the sizes"):
        coordinate_space_json(WrittenBoxes(truth, truth, np.zeros(3), "thousand"))


def test_affine_by_hand():
    box = np.array([[10.0, 20.0, 30.0, 40.0], [np.nan] * 4])
    moved = Affine(scale=(2.0, 0.5), offset=(1.0, -1.0)).apply(box)
    assert moved[0].tolist() == [21, 9, 61, 19]
    assert np.isnan(moved[1]).all()
    assert iou(moved, box)[1] == 0
