"""evaluation/effects.py: what is computed from whole curves, by hand and by simulation."""

import numpy as np
import pytest
from scipy import stats

from vlm_r1.errors import ResultError
from vlm_r1.stats.curves import (
    area_between,
    first_lasting_step,
    forgetting,
    generalization_gap,
    minimum_detectable_effect,
    trapezoid_weights,
)
from vlm_r1.stats.intervals import paired_difference

FEW = 0.95
MANY = 0.95


def hits(rng: np.random.Generator, accuracy: float, *shape: int) -> np.ndarray:
    return rng.random(shape) < accuracy


# --- area between the curves


def test_trapezoid_weights_by_hand():
    assert trapezoid_weights([0, 10, 30]) == pytest.approx([1 / 6, 1 / 2, 1 / 3])


def test_trapezoid_weights_agree_with_numpys_trapezoid():
    steps, y = np.array([0, 20, 50, 60, 120]), np.array([3.0, -1.0, 4.0, 1.0, 5.0])
    assert trapezoid_weights(steps) @ y * 120 == pytest.approx(np.trapezoid(y, steps))


def test_area_is_the_mean_difference_over_steps():
    """Differences of 0, 50 and 100 points at steps 0, 10 and 30: (25 * 10 + 75 * 20) / 30."""
    a = np.array([[0, 0], [0, 1], [1, 1]])
    found = area_between([0, 10, 30], a, np.zeros_like(a), np.array(["p", "q"]), FEW)
    assert found.mean == pytest.approx(1750 / 30)


def test_area_of_a_constant_difference_is_that_difference_with_its_interval():
    rng = np.random.default_rng(0)
    a, b = hits(rng, 0.7, 100), hits(rng, 0.5, 100)
    images = np.repeat(np.arange(50), 2)
    area = area_between([0, 1, 5], np.tile(a, (3, 1)), np.tile(b, (3, 1)), images, FEW)
    assert area == pytest.approx(paired_difference(a, b, images, FEW))


def test_area_takes_several_seeds():
    rng = np.random.default_rng(0)
    a, b = hits(rng, 0.7, 3, 4, 100), hits(rng, 0.5, 2, 4, 100)
    found = area_between([0, 1, 2, 4], a, b, np.arange(100), FEW)
    curve = a.mean(axis=(0, 2)) - b.mean(axis=(0, 2))
    assert found.mean == pytest.approx(100 * np.trapezoid(curve, [0, 1, 2, 4]) / 4)


def test_one_step_has_no_area():
    with pytest.raises(ResultError, match=r"got steps \[20\]\nneed two or more, rising"):
        area_between([20], np.ones((1, 4)), np.ones((1, 4)), np.arange(4), FEW)
    with pytest.raises(ResultError, match="need two or more, rising"):
        trapezoid_weights([0, 20, 20])


def test_a_curve_of_other_steps_is_refused():
    with pytest.raises(ResultError, match=r"a curve of shape \(3, 4\) at 2 steps"):
        area_between([0, 20], np.ones((3, 4)), np.ones((3, 4)), np.arange(4), FEW)


# --- lasting lead


@pytest.mark.parametrize(
    ("ahead", "first"),
    [
        ([False, True, True], 20),
        ([True, False, True], 30),  # a lead that was lost does not last
        ([True, True, True], 10),
        ([True, True, False], None),
        ([False, False, False], None),
    ],
)
def test_first_step_from_which_the_lead_lasts(ahead, first):
    assert first_lasting_step([10, 20, 30], ahead) == first


def test_no_steps_no_lead():
    assert first_lasting_step([], []) is None


# --- minimum detectable effect


def test_minimum_detectable_effect_by_its_formula():
    difference = np.repeat([1, 0, -1], [30, 60, 10])
    a, b = (difference > 0).astype(float), (difference < 0).astype(float)
    errors = stats.t.ppf([0.975, 0.8], 99).sum()
    found = minimum_detectable_effect(a, b, np.arange(100), MANY)
    assert found == pytest.approx(100 * errors * stats.sem(difference), rel=0.03)


def test_four_times_the_images_detect_half_the_effect():
    rng = np.random.default_rng(0)
    a, b = hits(rng, 0.5, 100), hits(rng, 0.5, 100)
    few = minimum_detectable_effect(a, b, np.arange(100), MANY)
    many = minimum_detectable_effect(np.tile(a, 4), np.tile(b, 4), np.arange(400), MANY)
    assert few / many == pytest.approx(2, rel=0.05)


def test_an_effect_of_that_size_is_found_80_times_in_100():
    """Methods that differ in 40 % of the rows, 300 images."""
    rng = np.random.default_rng(3)

    def draw(effect: float) -> tuple[np.ndarray, np.ndarray]:
        only = rng.choice(3, size=300, p=[0.2 + effect / 2, 0.2 - effect / 2, 0.6])
        return only == 0, only == 1

    images = np.arange(300)
    at_zero = [minimum_detectable_effect(*draw(0), images, FEW) for _ in range(20)]
    effect = np.mean(at_zero) / 100
    assert effect == pytest.approx(2.8 * (0.4 / 300) ** 0.5, rel=0.05)
    found = [paired_difference(*draw(effect), images, 0.95).p_value < 0.05 for seed in range(600)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def test_nothing_is_detectable_where_no_two_answers_differ():
    same = np.array([1, 0, 1])
    assert minimum_detectable_effect(same, same, np.arange(3), FEW) is None


# --- forgetting, generalization


def test_forgetting_is_step_0_minus_last():
    first, last = np.array([1, 1, 1, 0]), np.array([1, 0, 0, 0])
    assert forgetting(first, last, np.arange(4), FEW).mean == pytest.approx(50)


def test_all_seeds_forget_from_one_base():
    first, last = np.array([1, 1, 1, 0]), np.array([[1, 0, 0, 0], [1, 1, 0, 0]])
    assert forgetting(first, last, np.arange(4), FEW).mean == pytest.approx(75 - 37.5)


def test_gap_is_gain_in_domain_minus_gain_out_of_domain():
    inside, outside = np.array([1, 1, 0, 0]), np.array([-1, 0, 0, 0, 0])
    found = generalization_gap(inside, np.arange(4), outside, np.arange(5), MANY)
    assert found.mean == pytest.approx(50 + 20)


def test_variances_of_the_two_places_add():
    """Equal rows and equal names in both places must not cancel: the images are different."""
    gain = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=300)
    found = generalization_gap(gain, np.arange(300), gain, np.arange(300), MANY)
    half = stats.norm.ppf(0.975) * 100 * 2**0.5 * stats.sem(gain)
    assert found == pytest.approx((0, -half, half, 1), abs=0.05 * half)


def test_gap_covers_the_truth():
    rng = np.random.default_rng(5)
    covered = 0
    for _seed in range(600):
        inside = rng.choice([-1, 0, 1], size=60, p=[0.1, 0.5, 0.4])
        outside = rng.choice([-1, 0, 1], size=100, p=[0.2, 0.7, 0.1])
        found = generalization_gap(inside, np.arange(60), outside, np.arange(100), 0.95)
        covered += found.low <= 40 <= found.high
    assert 0.93 <= covered / 600 <= 0.97


def test_a_seed_that_gains_alike_in_both_places_leaves_the_gap_alone():
    """Seeds that gain 0 and 100 points, each in both places: the gap of each is 0."""
    inside, outside = np.repeat([[0], [1]], 40, axis=1), np.repeat([[0], [1]], 70, axis=1)
    found = generalization_gap(inside, np.arange(40), outside, np.arange(70), FEW)
    assert (found.mean, found.p_value) == (0, 1)
    assert found.high == -found.low


def test_seeds_must_be_the_same_in_both_places():
    with pytest.raises(ResultError, match="got 2 and 3 runs"):
        generalization_gap(np.ones((2, 4)), np.arange(4), np.ones((3, 5)), np.arange(5), FEW)


def test_bad_input_is_refused():
    with pytest.raises(ResultError, match="got no values"):
        forgetting(np.array([]), np.array([]), np.array([]), FEW)
    with pytest.raises(ResultError, match="in row 1\nneed finite"):
        generalization_gap([np.nan, 1], np.arange(2), np.ones(2), np.arange(2), FEW)
    with pytest.raises(ResultError, match="need two or more"):
        minimum_detectable_effect(np.ones(2), np.zeros(2), np.array(["p", "p"]), FEW)
