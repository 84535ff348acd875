"""stats/clustered.py: standard errors over images and runs, exact sign flips, Wilson intervals."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from vlm_r1.stats.clustered import (
    Term,
    contrast,
    difference_over_images,
    discordant_images,
    mean_over_images,
    min_discordant_images,
    sign_flip_p,
)

ROWS = np.arange(200)


def enumerated_p(parts: np.ndarray) -> float:
    """The definition: every pattern of signs is as likely."""
    sums = [abs(np.dot(parts, signs)) for signs in product((-1, 1), repeat=len(parts))]
    return float(np.mean([total >= abs(parts.sum()) - 1e-9 for total in sums]))


def test_with_a_row_an_image_the_interval_is_students():
    values = np.random.default_rng(0).normal(0.3, 1, size=200)
    found = mean_over_images(values, ROWS)
    assert found.standard_error == pytest.approx(stats.sem(values))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert found.interval(0.9) == pytest.approx(tuple(expected))
    assert found.degrees_of_freedom == 199


def test_the_standard_error_is_that_of_a_ratio_by_hand():
    """Images with hits (1, 1) and (0,): mean 2/3, influence (2 - 4/3) / 3 = 2/9 and -2/9."""
    found = mean_over_images(np.array([1, 1, 0]), np.array(["a", "a", "b"]))
    assert found.estimate == pytest.approx(2 / 3)
    assert found.standard_error == pytest.approx(np.sqrt(2 * (2 / 9) ** 2 * 2 / 1))


def test_rows_of_one_image_count_as_one_observation():
    hits = np.random.default_rng(1).random(200) < 0.6
    once = mean_over_images(hits, ROWS)
    thrice = mean_over_images(np.repeat(hits, 3), np.repeat(ROWS, 3))
    assert thrice.standard_error == pytest.approx(once.standard_error)
    assert thrice.share_interval(0.95) == pytest.approx(once.share_interval(0.95))


@pytest.mark.parametrize(
    ("parts", "p"),
    [
        ([1, 1, 1, 1, 1], 2 / 2**5),
        ([1, 1, 1, 1, -1], 12 / 2**5),
        ([2, 1], 0.5),
        ([0, 0, 0], 1.0),
        ([1, -1], 1.0),
        ([], 1.0),
    ],
)
def test_sign_flips_by_hand(parts, p):
    assert sign_flip_p(np.array(parts, dtype=float)) == pytest.approx(p)
    assert sign_flip_p(np.array(parts, dtype=float) / 700) == pytest.approx(p)


@pytest.mark.parametrize("scale", [1.0, 1 / 3, 0.5])
def test_sign_flips_of_whole_numbers_are_those_of_every_pattern(scale):
    rng = np.random.default_rng(2)
    for _ in range(20):
        parts = scale * rng.integers(-3, 4, size=10)
        assert sign_flip_p(parts) == pytest.approx(enumerated_p(parts)), parts


def test_sign_flips_of_other_numbers_are_exact_up_to_sixteen_and_normal_beyond():
    rng = np.random.default_rng(3)
    few, many = rng.normal(0.3, 1, size=10), rng.normal(0.1, 1, size=400)
    assert sign_flip_p(few) == pytest.approx(enumerated_p(few))
    assert sign_flip_p(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.005)


def test_five_images_in_one_direction_are_no_proof_and_the_interval_says_so():
    a = np.zeros(200)
    a[:5] = 1
    found = difference_over_images(a, np.zeros(200), ROWS)
    assert found.p_value() == pytest.approx(0.0625)
    low, high = found.interval(0.95)
    assert low == 0.0
    assert high == pytest.approx(0.025 + 1.972 * found.standard_error, abs=1e-4)


def test_interval_and_p_agree():
    rng = np.random.default_rng(4)
    for _ in range(300):
        a, b = rng.random((2, 60)) < 0.08
        found = difference_over_images(a, b, np.arange(60) // 2)
        low, high = found.interval(0.95)
        assert (low <= 0 <= high) == (found.p_value() >= 0.05)


def test_where_no_row_differs_the_bound_is_that_of_the_images():
    hits = np.ones(200)
    found = difference_over_images(hits, hits, ROWS)
    assert found.p_value() == 1.0
    assert found.interval(0.95)[1] == pytest.approx(1 - 0.025 ** (1 / 200))


def test_a_share_of_one_has_an_interval():
    low, high = mean_over_images(np.ones(100), np.arange(100)).share_interval(0.95)
    z = stats.t.ppf(0.975, 99)
    assert high == 1.0
    assert low == pytest.approx(100 / (100 + z**2))  # Wilson's at p = 1


def test_wilson_of_independent_rows_is_scipys():
    hits = np.arange(2000) < 1700
    low, high = mean_over_images(hits, np.arange(2000)).share_interval(0.95)
    expected = stats.binomtest(1700, 2000).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_runs_add_their_variance_by_hand():
    """Runs 0.5 and 0.7 on average: their level has variance (0.1**2 + 0.1**2) / 2 / 1 = 0.01."""
    first = np.tile([1, 0], 100)
    second = np.where(ROWS < 140, 1, 0)
    both = mean_over_images(np.stack([first, second]), ROWS)
    images = mean_over_images((first + second) / 2, ROWS)
    assert both.estimate == pytest.approx(0.6)
    assert both.standard_error**2 == pytest.approx(images.standard_error**2 + 0.01)
    assert both.degrees_of_freedom < 2


def test_datasets_are_sampled_apart_and_runs_together():
    rng = np.random.default_rng(5)
    inside, outside = rng.random((3, 100)) < 0.7, rng.random((3, 80)) < 0.6
    found = contrast(
        [Term(1.0, inside, np.arange(100), "id"), Term(-1.0, outside, np.arange(80), "ood")]
    )
    gaps = inside.mean(axis=1) - outside.mean(axis=1)
    assert found.estimate == pytest.approx(gaps.mean())
    expected = (
        stats.sem(inside.mean(axis=0)) ** 2 + stats.sem(outside.mean(axis=0)) ** 2
    ) + gaps.var(ddof=1) / 3
    assert found.standard_error**2 == pytest.approx(expected)


def test_discordant_images_are_those_on_which_the_means_differ():
    """The first image's two rows differ in opposite directions, the second's in one."""
    a, b = np.array([1, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert discordant_images(a, b, np.array(["p", "p", "q", "r"])) == 1


def test_six_discordant_images_can_be_significant_and_five_cannot():
    assert min_discordant_images(0.95) == 6
    assert sign_flip_p(np.ones(6)) < 0.05 <= sign_flip_p(np.ones(5))
