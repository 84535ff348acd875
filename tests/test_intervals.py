"""evaluation/bootstrap.py and statistics.py: by hand, against twins, against scipy, simulated."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from vlm_r1.errors import ResultError
from vlm_r1.stats.bootstrap import resample_difference, resample_mean
from vlm_r1.stats.intervals import (
    Resampling,
    holm,
    interval,
    mcnemar_test,
    paired_difference,
    resampled_means,
)

FEW = Resampling(confidence=0.95, resamples=2000, seed=1)


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


def slow_means(values, images, resamples, seed) -> list[float]:
    """The same bootstrap, row by row: draw images, collect their rows, take the mean."""
    rng = np.random.default_rng(seed)
    names = sorted(set(images))
    means = []
    for _ in range(resamples):
        rows = []
        for name in rng.choice(names, size=len(names)):
            rows += [v for v, p in zip(values, images, strict=True) if p == name]
        means.append(sum(rows) / len(rows))
    return means


# --- intervals


def test_two_images_give_the_three_possible_means():
    means = resampled_means(np.array([1, 1, 0]), np.array(["a", "a", "b"]), FEW)
    values, counts = np.unique(np.round(means, 3), return_counts=True)
    assert values.tolist() == [0.0, 0.667, 1.0]  # b b, a b, a a
    assert counts / counts.sum() == pytest.approx([0.25, 0.5, 0.25], abs=0.04)


def test_interval_of_two_images_reaches_from_one_to_the_other():
    assert interval(np.array([1, 1, 0]), np.array(["a", "a", "b"]), FEW) == pytest.approx(
        (200 / 3, 0, 100)
    )


def test_confidence_sets_the_width():
    hits, images = clustered_hits(np.random.default_rng(3), images=200)
    wide = interval(hits, images, FEW)
    narrow = interval(hits, images, Resampling(0.6827, 2000, 1))
    ratio = (wide.high - wide.low) / (narrow.high - narrow.low)
    assert ratio == pytest.approx(1.96, rel=0.08)


def test_agrees_with_the_slow_twin():
    hits, images = clustered_hits(np.random.default_rng(3), images=25)
    twin = slow_means(hits, images, resamples=1000, seed=9)
    fast = resampled_means(hits, images, FEW)
    assert fast.mean() == pytest.approx(np.mean(twin), abs=0.01)
    quantiles = [0.025, 0.25, 0.75, 0.975]
    assert np.quantile(fast, quantiles) == pytest.approx(np.quantile(twin, quantiles), abs=0.03)


@pytest.mark.parametrize("accuracy", [0.5, 0.95])
def test_agrees_with_scipys_bca_on_the_ratio_of_sums_over_images(accuracy):
    """With 400 images Student's t is as good as normal, so only BCa itself is compared."""
    hits, images = clustered_hits(np.random.default_rng(3), images=400, accuracy=accuracy)
    sums, rows = np.bincount(images, weights=hits), np.bincount(images)
    theirs = stats.bootstrap(
        (sums, rows),
        lambda s, n, axis: s.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    _, low, high = interval(hits, images, Resampling(0.95, 4000, 7))
    width = 100 * (theirs.high - theirs.low)
    assert [low, high] == pytest.approx([100 * theirs.low, 100 * theirs.high], abs=0.06 * width)


def test_rows_of_one_image_count_as_one_observation():
    hits = np.tile([1, 0], 20)
    as_rows = interval(np.repeat(hits, 5), np.arange(200), FEW)
    as_images = interval(np.repeat(hits, 5), np.repeat(np.arange(40), 5), FEW)
    ratio = (as_images.high - as_images.low) / (as_rows.high - as_rows.low)
    assert ratio == pytest.approx(5**0.5, rel=0.15)


@pytest.mark.parametrize(
    ("accuracy", "correlation"), [(0.5, 0.1), (0.5, 0.5), (0.9, 0.1), (0.9, 0.5)]
)
def test_95_percent_interval_covers_the_truth_93_to_97_times_in_100(accuracy, correlation):
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(1000):
        hits, images = clustered_hits(rng, 60, accuracy, correlation)
        _, low, high = interval(hits, images, Resampling(0.95, 500, seed))
        covered += low <= 100 * accuracy <= high
    assert 930 <= covered <= 970


def test_difference_covers_the_truth_and_rejects_no_difference_5_times_in_100():
    """Two methods with common luck on an image and luck of their own."""
    rng = np.random.default_rng(6)
    covered = rejected = 0
    for seed in range(1000):
        resampling = Resampling(0.95, 500, seed)
        hits, images = clustered_hits(rng, 60, 0.6)
        a, b = (np.where(rng.random(len(hits)) < 0.4, rng.random(len(hits)) < 0.6, hits)
                for _ in "ab")  # fmt: skip
        found = paired_difference(a, b, images, resampling)
        covered += found.low <= 0 <= found.high
        rejected += found.p_value < 0.05
    assert 930 <= covered <= 970
    assert 30 <= rejected <= 70


def test_same_seed_same_interval_in_any_row_order():
    hits, images = clustered_hits(np.random.default_rng(3), images=25)
    order = np.random.default_rng(0).permutation(len(hits))
    assert interval(hits, images, FEW) == interval(hits[order], images[order], FEW)
    assert interval(hits, images, FEW) != interval(hits, images, Resampling(0.95, 2000, 2))


def test_all_right_has_no_spread():
    assert interval(np.ones(30), np.arange(30), FEW) == (100, 100, 100)


# --- differences


def test_identical_inputs_differ_by_nothing():
    hits, images = clustered_hits(np.random.default_rng(3), images=25)
    assert paired_difference(hits, hits, images, FEW) == (0, 0, 0, 1)


def test_difference_is_a_minus_b_and_turns_its_sign():
    a, b = np.array([1, 1, 1, 0]), np.array([0, 1, 0, 0])
    images = np.arange(4)
    found, turned = paired_difference(a, b, images, FEW), paired_difference(b, a, images, FEW)
    assert found.mean == pytest.approx(50)
    assert turned[:3] == pytest.approx((-found.mean, -found.high, -found.low))
    assert turned.p_value == pytest.approx(found.p_value)


def test_p_is_never_zero():
    found = paired_difference(np.ones(50), np.zeros(50), np.arange(50), FEW)
    assert found[:3] == (100, 100, 100)
    assert 2 / 2001 <= found.p_value < 0.003


def test_p_is_about_that_of_the_sign_test():
    a = (np.arange(400) < 220).astype(float)  # 220 up, 180 down
    found = paired_difference(a, 1 - a, np.arange(400), Resampling(0.95, 20_000, 1))
    assert found.p_value == pytest.approx(stats.binomtest(220, 400).pvalue, rel=0.15)


def test_the_interval_at_confidence_1_minus_p_ends_at_zero():
    rng = np.random.default_rng(8)
    difference = rng.normal(0.1, 1, 150) ** 3  # skewed
    resampled = resample_mean(difference, np.arange(150), Resampling(0.95, 20_000, 1))
    p_value = resampled.p_value()
    assert 0.001 < p_value < 0.9
    ends = resampled.interval(1 - p_value)
    assert min(np.abs(ends)) < 0.01 * (ends[1] - ends[0])


def test_standard_error_is_that_of_independent_images():
    values = np.random.default_rng(0).normal(size=200)
    found = resample_mean(values, np.arange(200), Resampling(0.95, 4000, 1))
    assert found.standard_error == pytest.approx(stats.sem(values), rel=0.05)
    assert found.degrees_of_freedom == pytest.approx(199)


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
    assert interval(hits[None], images, FEW) == interval(hits, images, FEW)
    other = ~hits
    paired = paired_difference(hits, other, images, FEW)
    assert paired_difference(hits[None], other[None], images, FEW) == paired


def test_equal_seeds_add_no_spread():
    hits, images = clustered_hits(np.random.default_rng(3), images=60)
    once, twice = resample_mean(hits, images, FEW), resample_mean([hits, hits], images, FEW)
    assert twice.draws == pytest.approx(once.draws)


def test_variance_is_that_of_seeds_plus_that_of_images():
    hits = seeds_of(np.random.default_rng(4), seeds=6, spread=0.1).astype(float)
    found = resample_mean(hits, np.arange(200), Resampling(0.95, 20_000, 1))
    per_seed, per_image = hits.mean(axis=1), hits.mean(axis=0)
    expected = per_seed.var(ddof=1) / 6 + per_image.var(ddof=1) / 200
    assert found.estimate == pytest.approx(hits.mean())
    assert found.standard_error**2 == pytest.approx(expected, rel=0.2)


def test_seeds_of_the_two_methods_vary_apart():
    rng = np.random.default_rng(4)
    a, b = seeds_of(rng, 5, 0.1).astype(float), seeds_of(rng, 4, 0.1).astype(float)
    found = resample_difference(a, b, np.arange(200), Resampling(0.95, 20_000, 1))
    rows = a.mean(axis=0) - b.mean(axis=0)
    expected = sum(m.mean(axis=1).var(ddof=1) / len(m) for m in (a, b)) + rows.var(ddof=1) / 200
    assert found.estimate == pytest.approx(a.mean() - b.mean())
    assert found.standard_error**2 == pytest.approx(expected, rel=0.2)


def test_eight_seeds_cover_the_methods_mean_at_least_as_often_as_they_say():
    """Drawing both levels counts the luck of single answers more than once (Owen 2007)."""
    rng = np.random.default_rng(7)
    covered = 0
    for seed in range(400):
        found = interval(seeds_of(rng, 8, 0.05), np.arange(200), Resampling(0.95, 400, seed))
        covered += found.low <= 50 <= found.high
    assert covered / 400 >= 0.94


# --- bad input


def test_one_image_says_nothing_about_spread():
    with pytest.raises(ResultError, match="got 1 image\nneed two or more"):
        interval(np.array([1, 0]), np.array(["a", "a"]), FEW)


def test_unequal_lengths_are_refused():
    with pytest.raises(ResultError, match="got 3 and 2 values\nneed the same rows in both"):
        paired_difference(np.ones(3), np.ones(2), np.arange(3), FEW)
    with pytest.raises(ResultError, match=r"got 3 values and \(2,\) images"):
        interval(np.ones(3), np.arange(2), FEW)
    with pytest.raises(ResultError, match="got hits of 3 and 2 rows"):
        mcnemar_test(np.ones(3), np.ones(2))


def test_an_empty_dataset_is_refused():
    for count in (interval, resampled_means):
        with pytest.raises(ResultError, match="got no values"):
            count(np.array([]), np.array([]), FEW)
    with pytest.raises(ResultError, match="got hits of 0 and 0 rows"):
        mcnemar_test(np.array([]), np.array([]))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused_with_their_row(broken):
    values = np.array([1.0, broken, 0.0])
    with pytest.raises(ResultError, match=r"in row 2\nneed finite values"):
        interval(values, np.arange(3), FEW)
    with pytest.raises(ResultError, match="in row 2"):
        paired_difference(np.ones(3), values, np.arange(3), FEW)
    with pytest.raises(ResultError, match="need each from 0 to 1"):
        holm([0.1, broken])
