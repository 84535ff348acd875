"""evaluation/statistics.py: worked by hand, against a slow twin, and by simulation."""

import numpy as np
import pytest

from vlm_r1.evaluation.statistics import (
    Resampling,
    discordance,
    interval,
    paired_difference,
    resampled_means,
)

FEW = Resampling(confidence=0.95, resamples=2000, seed=1)


def clustered_hits(rng: np.random.Generator, pictures: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits whose chance is common to the one to three rows of a picture."""
    rows = rng.integers(1, 4, size=pictures)
    chance = np.repeat(rng.choice([0.2, 0.9], size=pictures), rows)
    return rng.random(rows.sum()) < chance, np.repeat(np.arange(pictures), rows)


def slow_means(values, pictures, resamples, seed) -> list[float]:
    """The same bootstrap, row by row: draw pictures, collect their rows, take the mean."""
    rng = np.random.default_rng(seed)
    names = sorted(set(pictures))
    means = []
    for _ in range(resamples):
        rows = []
        for name in rng.choice(names, size=len(names)):
            rows += [v for v, p in zip(values, pictures, strict=True) if p == name]
        means.append(sum(rows) / len(rows))
    return means


def test_two_pictures_give_the_three_possible_means():
    means = resampled_means(np.array([1, 1, 0]), np.array(["a", "a", "b"]), FEW)
    values, counts = np.unique(np.round(means, 3), return_counts=True)
    assert values.tolist() == [0.0, 0.667, 1.0]  # b b, a b, a a
    assert counts / counts.sum() == pytest.approx([0.25, 0.5, 0.25], abs=0.04)


def test_interval_of_two_pictures_reaches_from_one_to_the_other():
    assert interval(np.array([1, 1, 0]), np.array(["a", "a", "b"]), FEW) == pytest.approx(
        (200 / 3, 0, 100)
    )


def test_confidence_sets_the_width():
    narrow = Resampling(confidence=0.4, resamples=2000, seed=1)
    found = interval(np.array([1, 1, 0]), np.array(["a", "a", "b"]), narrow)
    assert found == pytest.approx((200 / 3, 200 / 3, 200 / 3))


def test_agrees_with_the_slow_twin():
    hits, pictures = clustered_hits(np.random.default_rng(3), pictures=25)
    twin = slow_means(hits, pictures, resamples=2000, seed=9)
    fast = resampled_means(hits, pictures, FEW)
    assert fast.mean() == pytest.approx(np.mean(twin), abs=0.01)
    quantiles = [0.025, 0.25, 0.75, 0.975]
    assert np.quantile(fast, quantiles) == pytest.approx(np.quantile(twin, quantiles), abs=0.03)


def test_rows_of_one_picture_count_as_one_observation():
    hits = np.tile([1, 0], 20)
    as_rows = interval(np.repeat(hits, 5), np.arange(200), FEW)
    as_pictures = interval(np.repeat(hits, 5), np.repeat(np.arange(40), 5), FEW)
    ratio = (as_pictures.high - as_pictures.low) / (as_rows.high - as_rows.low)
    assert ratio == pytest.approx(5**0.5, rel=0.15)


def test_95_percent_interval_covers_the_truth_95_times_in_100():
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(400):
        hits, pictures = clustered_hits(rng, pictures=80)
        _, low, high = interval(hits, pictures, Resampling(0.95, 400, seed))
        covered += low <= 55.0 <= high  # (0.2 + 0.9) / 2
    assert 0.92 <= covered / 400 <= 0.98


def test_same_seed_same_interval_in_any_row_order():
    hits, pictures = clustered_hits(np.random.default_rng(3), pictures=25)
    order = np.random.default_rng(0).permutation(len(hits))
    assert interval(hits, pictures, FEW) == interval(hits[order], pictures[order], FEW)
    assert interval(hits, pictures, FEW) != interval(hits, pictures, Resampling(0.95, 2000, 2))


def test_identical_inputs_differ_by_nothing():
    hits, pictures = clustered_hits(np.random.default_rng(3), pictures=25)
    assert paired_difference(hits, hits, pictures, FEW) == (0, 0, 0, 1)


def test_difference_is_a_minus_b_and_turns_its_sign():
    a, b = np.array([1, 1, 1, 0]), np.array([0, 1, 0, 0])
    pictures = np.arange(4)
    found, turned = paired_difference(a, b, pictures, FEW), paired_difference(b, a, pictures, FEW)
    assert found.mean == pytest.approx(50)
    assert turned[:3] == pytest.approx((-found.mean, -found.high, -found.low))
    assert turned.p_value == found.p_value


def test_p_is_never_zero():
    found = paired_difference(np.ones(50), np.zeros(50), np.arange(50), FEW)
    assert found == pytest.approx((100, 100, 100, 2 / 2001))


def test_p_is_twice_the_share_beyond_zero():
    a, b = np.array([1, 1, 0]), np.array([0, 0, 1])  # resampled mean <= 0: 7 of 27 draws
    found = paired_difference(a, b, np.arange(3), FEW)
    assert found.p_value == pytest.approx(2 * 7 / 27, abs=0.04)


def test_mcnemar_by_hand():
    a = np.array([1, 0, 0, 0, 0, 0, 1, 0], dtype=bool)
    b = np.array([0, 1, 1, 1, 1, 1, 1, 0], dtype=bool)
    assert discordance(a, b) == pytest.approx((1, 5, 2 * (1 + 6) / 2**6))


def test_mcnemar_without_a_discordant_row():
    assert discordance(np.array([1, 0]), np.array([1, 0])) == (0, 0, 1.0)


def test_one_picture_says_nothing_about_spread():
    with pytest.raises(ValueError, match="got 1 picture, need two or more"):
        interval(np.array([1, 0]), np.array(["a", "a"]), FEW)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="need the same rows in both"):
        paired_difference(np.ones(3), np.ones(2), np.arange(3), FEW)
    with pytest.raises(ValueError, match="need equal"):
        interval(np.ones(3), np.arange(2), FEW)
