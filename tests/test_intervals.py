"""stats/intervals.py: by hand, against closed testing, simulated; see test_clustered.py."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from vlm_r1.errors import ResultError
from vlm_r1.stats.intervals import (
    holm,
    interval,
    mcnemar_test,
    paired_difference,
)

CONFIDENCE = 0.95


def clustered_hits(
    rng: np.random.Generator, images: int, accuracy: float = 0.5, correlation: float = 0.3
) -> tuple[np.ndarray, np.ndarray]:
    """Hits of one to three rows an image; `correlation` is that of two rows of one image.

    An image's own chance is beta-distributed, so hits are beta-binomial.
    """
    rows = rng.integers(1, 4, size=images)
    strength = 1 / correlation - 1
    own = rng.beta(accuracy * strength, (1 - accuracy) * strength, size=images)
    hits = rng.random(rows.sum()) < np.repeat(own, rows)
    return hits, np.repeat(np.arange(images), rows)


# --- intervals


def test_an_interval_of_percents_stays_within_0_and_100():
    mean, low, high = interval(np.array([1, 1, 0]), np.array(["a", "a", "b"]), CONFIDENCE)
    assert mean == pytest.approx(200 / 3)
    assert 0 <= low < mean < high <= 100


def test_confidence_sets_the_width():
    hits, images = clustered_hits(np.random.default_rng(3), images=200)
    wide = interval(hits, images, CONFIDENCE)
    narrow = interval(hits, images, 0.6827)
    ratio = (wide.high - wide.low) / (narrow.high - narrow.low)
    assert ratio == pytest.approx(1.96, rel=0.02)


@pytest.mark.parametrize(
    ("accuracy", "correlation"),
    [(0.5, 0.1), (0.5, 0.5), (0.9, 0.1), (0.9, 0.5), (0.95, 0.1), (0.95, 0.5)],
)
def test_95_percent_interval_covers_the_truth_93_to_97_times_in_100(accuracy, correlation):
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(1000):
        hits, images = clustered_hits(rng, 60, accuracy, correlation)
        _, low, high = interval(hits, images, 0.95)
        covered += low <= 100 * accuracy <= high
    assert 930 <= covered <= 970


def test_difference_covers_the_truth_and_rejects_no_difference_5_times_in_100():
    """Two methods with common luck on an image and luck of their own."""
    rng = np.random.default_rng(6)
    covered = rejected = 0
    for _ in range(1000):
        hits, images = clustered_hits(rng, 60, 0.6)
        a, b = (np.where(rng.random(len(hits)) < 0.4, rng.random(len(hits)) < 0.6, hits)
                for _ in "ab")  # fmt: skip
        found = paired_difference(a, b, images, CONFIDENCE)
        covered += found.low <= 0 <= found.high
        rejected += found.p_value < 0.05
    assert 930 <= covered <= 970
    assert 30 <= rejected <= 70


def test_the_order_of_rows_does_not_matter():
    hits, images = clustered_hits(np.random.default_rng(3), images=25)
    order = np.random.default_rng(0).permutation(len(hits))
    assert interval(hits, images, CONFIDENCE) == pytest.approx(
        interval(hits[order], images[order], CONFIDENCE)
    )


# --- differences


def test_identical_inputs_differ_by_nothing():
    hits, images = clustered_hits(np.random.default_rng(3), images=25)
    bound = 100 * (1 - 0.025 ** (1 / 25))
    assert paired_difference(hits, hits, images, CONFIDENCE) == pytest.approx((0, -bound, bound, 1))


def test_difference_is_a_minus_b_and_turns_its_sign():
    a, b = np.array([1, 1, 1, 0]), np.array([0, 1, 0, 0])
    images = np.arange(4)
    found, turned = (
        paired_difference(a, b, images, CONFIDENCE),
        paired_difference(b, a, images, CONFIDENCE),
    )
    assert found.mean == pytest.approx(50)
    assert turned[:3] == pytest.approx((-found.mean, -found.high, -found.low))
    assert turned.p_value == pytest.approx(found.p_value)


def test_p_is_about_that_of_the_sign_test():
    a = (np.arange(400) < 220).astype(float)  # 220 up, 180 down
    found = paired_difference(a, 1 - a, np.arange(400), 0.95)
    assert found.p_value == pytest.approx(stats.binomtest(220, 400).pvalue, rel=0.15)


# --- McNemar, Holm


def test_mcnemar_by_hand():
    a = np.array([1, 0, 0, 0, 0, 0, 1, 0], dtype=bool)
    b = np.array([0, 1, 1, 1, 1, 1, 1, 0], dtype=bool)
    assert mcnemar_test(a, b) == pytest.approx((1, 5, 2 * (1 + 6) / 2**6))


def test_mcnemar_without_a_discordant_row():
    assert mcnemar_test(np.array([1, 0]), np.array([1, 0])) == (0, 0, 1.0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_agrees_with_closed_testing():
    """Its definition: the largest Bonferroni p of all sets of hypotheses that hold this one."""
    p = np.random.default_rng(2).random(5) ** 3
    sets = [s for size in range(1, 6) for s in combinations(range(5), size)]
    twin = [max(min(1, len(s) * p[list(s)].min()) for s in sets if i in s) for i in range(5)]
    assert holm(p) == pytest.approx(twin)


# --- several seeds


def seeds_of(
    rng: np.random.Generator, seeds: int, spread: float, mean: float = 0.5, n: int = 200
) -> np.ndarray:
    """Hits (seeds, n) of runs whose accuracies are spread by `spread` around `mean`."""
    accuracy = rng.normal(mean, spread, size=(seeds, 1))
    return rng.random((seeds, n)) < accuracy


def test_one_seed_is_the_bootstrap_over_images():
    hits, images = clustered_hits(np.random.default_rng(3), images=25)
    assert interval(hits[None], images, CONFIDENCE) == interval(hits, images, CONFIDENCE)
    other = ~hits
    paired = paired_difference(hits, other, images, CONFIDENCE)
    assert paired_difference(hits[None], other[None], images, CONFIDENCE) == paired


def test_eight_seeds_cover_the_methods_mean_at_least_as_often_as_they_say():
    """Drawing both levels counts the luck of single answers more than once (Owen 2007)."""
    rng = np.random.default_rng(7)
    covered = 0
    for _seed in range(400):
        found = interval(seeds_of(rng, 8, 0.05), np.arange(200), 0.95)
        covered += found.low <= 50 <= found.high
    assert covered / 400 >= 0.94


# --- bad input


def test_one_image_says_nothing_about_spread():
    with pytest.raises(ResultError, match="got 1 image\nneed two or more"):
        interval(np.array([1, 0]), np.array(["a", "a"]), CONFIDENCE)


def test_unequal_lengths_are_refused():
    with pytest.raises(ResultError, match="got 3 and 2 values\nneed the same rows in both"):
        paired_difference(np.ones(3), np.ones(2), np.arange(3), CONFIDENCE)
    with pytest.raises(ResultError, match=r"got 3 values and \(2,\) images"):
        interval(np.ones(3), np.arange(2), CONFIDENCE)
    with pytest.raises(ResultError, match="got hits of 3 and 2 rows"):
        mcnemar_test(np.ones(3), np.ones(2))


def test_an_empty_dataset_is_refused():
    for count in (interval,):
        with pytest.raises(ResultError, match="got no values"):
            count(np.array([]), np.array([]), CONFIDENCE)
    with pytest.raises(ResultError, match="got hits of 0 and 0 rows"):
        mcnemar_test(np.array([]), np.array([]))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused_with_their_row(broken):
    values = np.array([1.0, broken, 0.0])
    with pytest.raises(ResultError, match=r"in row 2\nneed finite values"):
        interval(values, np.arange(3), CONFIDENCE)
    with pytest.raises(ResultError, match="in row 2"):
        paired_difference(np.ones(3), values, np.arange(3), CONFIDENCE)
    with pytest.raises(ResultError, match="need each from 0 to 1"):
        holm([0.1, broken])
