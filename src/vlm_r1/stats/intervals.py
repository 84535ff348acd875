"""Intervals over images, paired differences, McNemar's test and Holm's correction.

Numpy and scipy only. All results are percent points. `clustered` has standard errors and tests,
`curves` what is computed from whole curves, docs/statistics.md the formulas with examples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from vlm_r1.errors import ResultError
from vlm_r1.stats.clustered import ClusteredMean, difference_over_images, mean_over_images


class Interval(NamedTuple):
    """A mean with its interval, percent."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """A mean difference with its interval, percent points, and the two-sided p of 0."""

    mean: float
    low: float
    high: float
    p_value: float

    @classmethod
    def of(cls, found: ClusteredMean, confidence: float) -> "Difference":
        """From a difference of means (0-1)."""
        low, high = found.interval(confidence)
        return cls(100 * found.estimate, 100 * low, 100 * high, found.p_value())


class McNemarResult(NamedTuple):
    """Counts of rows that only `a` or only `b` got right, and McNemar's exact two-sided p."""

    only_a: int
    only_b: int
    p_value: float


def interval(values: np.ndarray, images: np.ndarray, confidence: float) -> Interval:
    """Mean of `values` (0-1) as percent, with its interval.

    Args:
        values: (n,), or (seeds, n) for several training runs on the same rows.
        images: (n,), the image of each row.

    Raises:
        ResultError: no values, a NaN, lengths differ, or fewer than two images.

    Example: 100 images, all right -> mean 100, interval 96.2 to 100
    """
    found = mean_over_images(values, images)
    low, high = found.share_interval(confidence)
    return Interval(100 * found.estimate, 100 * low, 100 * high)


def paired_difference(
    a: np.ndarray, b: np.ndarray, images: np.ndarray, confidence: float
) -> Difference:
    """Mean of `a` minus mean of `b` with its interval and the p of no difference.

    Args:
        a, b: (n,), or (seeds, n) for several training runs; the same rows in the same order. The
            training runs of `a` and of `b` are independent of each other.
        images: (n,), the image of each row.

    Raises:
        ResultError: no values, a NaN, lengths differ, or fewer than two images.
    """
    return Difference.of(difference_over_images(a, b, images), confidence)


def mcnemar_test(a: np.ndarray, b: np.ndarray) -> McNemarResult:
    """McNemar's exact test of hits `a` against hits `b`, bool (n,) in the same row order.

    Assumes independent rows. Source: McNemar (1947), Psychometrika 12.

    Raises:
        ResultError: lengths differ, or there are no rows.

    Example: 1 row only a, 5 rows only b -> p = 2 * (1 + 6) / 2**6 = 0.21875
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.shape != b.shape or a.size == 0:
        raise ResultError(
            got=f"hits of {a.size} and {b.size} rows",
            need="the same rows in both, at least one",
            because="the test counts rows that only one of the two got right",
            do="check that both result files are whole and of one dataset",
        )
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return McNemarResult(0, 0, 1.0)
    return McNemarResult(only_a, only_b, float(stats.binomtest(only_a, only_a + only_b).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for multiple testing by Holm's step-down method, in the given order.

    The smallest of m is multiplied by m, the next by m - 1, ...; each is at least the one before it
    and at most 1. Source: Holm (1979), Scand. J. Stat. 6.

    Raises:
        ResultError: a p outside 0-1, or NaN.

    Example: (0.01, 0.04, 0.03) -> (0.03, 0.06, 0.06)
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ResultError(
            got=f"p values {p.tolist()}",
            need="each from 0 to 1",
            because="adjusted p values are multiples of the given ones",
            do="check the comparison whose p is out of range",
        )
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return [float(value) for value in np.minimum(adjusted, 1.0)]
