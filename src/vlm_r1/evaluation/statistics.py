"""How sure a number is: bootstrap over pictures, paired differences, McNemar. Numpy and scipy only.

Phrases on one picture succeed and fail together, so pictures are resampled, not rows: each resample
draws as many pictures as there are, with replacement, and takes all their rows along. The mean is
then a ratio, sum of values / number of rows, both from the drawn pictures.
All results are percent points.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

DRAWS_AT_ONCE = 2_000_000  # bounds memory: about 50 MB


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: `confidence` (0-1), number of `resamples`, `seed`."""

    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 42


class Interval(NamedTuple):
    """A mean with its percentile interval, percent."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """A mean difference with its interval, percent points, and a two-sided bootstrap p."""

    mean: float
    low: float
    high: float
    p_value: float


class Discordance(NamedTuple):
    """Rows that only one of two got right, and McNemar's exact two-sided p."""

    only_a: int
    only_b: int
    p_value: float


def interval(values: np.ndarray, pictures: np.ndarray, resampling: Resampling) -> Interval:
    """Mean of `values` (n,) in 0-1 as percent, with its interval over `pictures` (n,).

    Raises:
        ValueError: lengths differ, or fewer than two pictures.

    Example: two pictures with hits (1, 1) and (0,) -> mean 66.7, interval 0 to 100
    """
    means = resampled_means(values, pictures, resampling)
    return Interval(100 * float(np.mean(values)), *_percentiles(means, resampling.confidence))


def paired_difference(
    a: np.ndarray, b: np.ndarray, pictures: np.ndarray, resampling: Resampling
) -> Difference:
    """Mean of `a` minus mean of `b`, (n,) each in the same row order.

    Both are resampled with the same pictures. p is twice the share of resamples on the rarer side
    of zero (zeros count on both sides), with one added above and below so that it is never 0.

    Raises:
        ValueError: lengths differ, or fewer than two pictures.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"got {a.shape} and {b.shape} values, need the same rows in both")
    means = resampled_means(a - b, pictures, resampling)
    rarer_side = min((means <= 0).sum(), (means >= 0).sum())
    p_value = min(1.0, 2 * (1 + int(rarer_side)) / (1 + resampling.resamples))
    low, high = _percentiles(means, resampling.confidence)
    return Difference(100 * float(np.mean(a - b)), low, high, p_value)


def discordance(a: np.ndarray, b: np.ndarray) -> Discordance:
    """McNemar's exact test of hits `a` against hits `b`, bool (n,) in the same row order.

    Example: 1 row only a, 5 rows only b -> p = 2 * (1 + 6) / 2**6 = 0.21875
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return Discordance(0, 0, 1.0)
    return Discordance(only_a, only_b, float(stats.binomtest(only_a, only_a + only_b).pvalue))


def resampled_means(values: np.ndarray, pictures: np.ndarray, resampling: Resampling) -> np.ndarray:
    """Mean of `values` (n,) in every resample of `pictures` (n,), shape (resamples,)."""
    sums, rows = _picture_totals(values, pictures)
    rng = np.random.default_rng(resampling.seed)
    chunk = max(1, DRAWS_AT_ONCE // len(sums))
    means = []
    for start in range(0, resampling.resamples, chunk):
        size = (min(chunk, resampling.resamples - start), len(sums))
        drawn = rng.integers(len(sums), size=size)
        means.append(sums[drawn].sum(axis=1) / rows[drawn].sum(axis=1))
    return np.concatenate(means)


def _picture_totals(values: np.ndarray, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per picture: sum of its values and number of its rows, (pictures,) each."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != np.shape(pictures):
        raise ValueError(f"got {values.shape} values and {np.shape(pictures)} pictures, need equal")
    names, which = np.unique(pictures, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"got {len(names)} picture, need two or more to say how sure a mean is")
    return np.bincount(which, weights=values), np.bincount(which).astype(np.float64)


def _percentiles(means: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of 0-1 `means`, percent."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return 100 * float(low), 100 * float(high)
