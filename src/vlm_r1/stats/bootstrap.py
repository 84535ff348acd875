"""The bootstrap behind every interval: resamples images, and seeds if there are several.

Phrases about one image tend to succeed and fail together, so images are resampled rather than rows:
each resample draws as many images as there are, with replacement, and keeps all rows of an image
together. The mean is then a ratio, sum of values / number of rows, both over the drawn images. With
several seeds (training runs), seeds are drawn as well, independently of the images: Owen (2007),
"The pigeonhole bootstrap", Ann. Appl. Stat. 1(2).

Intervals are BCa (Efron 1987, JASA 82; DiCiccio and Efron 1996, Stat. Sci. 11, section 2), which
corrects for bias and skew, with Student's t quantiles in place of normal ones (the expanded
interval of Hesterberg 2015, Am. Stat. 69). Plain percentile intervals are too short for accuracies
near 100 %: docs/statistics.md has the measured coverage of both. All means in this module are 0-1.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit  # cdf and quantiles: normal, Student's t

from vlm_r1.errors import ResultError

DRAWS_AT_ONCE = 100_000  # about what fits in a core's cache; larger chunks are slower
MAX_Z = 5.0  # normal quantiles are clipped here: beyond any resample, below BCa's pole at 6
TIE_DECIMALS = 12  # rounding, so that equal means tie whatever order their rows were summed in
# Random streams under one seed: quantities that share a stream are resampled together.
IMAGES, OTHER_IMAGES, SEEDS, OTHER_SEEDS = range(4)


@dataclass(frozen=True)
class Resampling:
    """Settings of an interval: `confidence` (0-1), number of `resamples`, random `seed`."""

    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 42


DEFAULT_RESAMPLING = Resampling()


@dataclass(frozen=True)
class Means:
    """The mean of each of several columns, with its resamples.

    Attributes:
        plain: (columns,), over all rows.
        draws: (resamples, columns); a resample uses the same images in all columns.
        influence: (columns, images), empirical influence of each image on the mean, divided by
            the number of images; each row sums to 0.
    """

    plain: np.ndarray
    draws: np.ndarray
    influence: np.ndarray


@dataclass(frozen=True)
class Resampled:
    """An estimate and its resamples.

    Attributes:
        draws: (resamples,).
        influence: for each level of resampling (images, then seeds), how much each image or seed
            moves the estimate; each array sums to 0.
    """

    estimate: float
    draws: np.ndarray
    influence: list[np.ndarray]

    def interval(self, confidence: float) -> tuple[float, float]:
        """Both ends of the BCa interval, with t quantiles."""
        tail = (1 - confidence) / 2
        wide = self._widening * stdtrit(self.degrees_of_freedom, [tail, 1 - tail])
        shifted = self._bias + np.clip(wide, -MAX_Z, MAX_Z)
        levels = ndtr(self._bias + shifted / (1 - self._acceleration * shifted))
        low, high = np.round(np.quantile(self.draws, levels), TIE_DECIMALS)
        return float(low), float(high)

    def p_value(self) -> float:
        """Two-sided p of the hypothesis that the true value is 0, by inverting the interval.

        It is 1 - the confidence at which the interval just touches 0. Resamples equal to 0 count on
        both sides, and one is added to each side (Davison and Hinkley 1997, eq. 4.11), so p is
        never 0.
        """
        draws = np.round(self.draws, TIE_DECIMALS)
        beyond = np.array([(draws <= 0).sum(), (draws >= 0).sum()])
        low, high = ndtri((1 + beyond) / (1 + len(draws)))
        shifted = np.clip([low, -high], -MAX_Z, MAX_Z) - self._bias
        wide = shifted / (1 + self._acceleration * shifted) - self._bias
        below, above = stdtr(self.degrees_of_freedom, wide * [1, -1] / self._widening)
        return float(min(1.0, 2 * min(below, above)))

    @property
    def standard_error(self) -> float:
        """Standard deviation of the resamples, corrected for its bias at few images or seeds."""
        return self._widening * float(np.std(self.draws))

    @cached_property
    def degrees_of_freedom(self) -> float:
        """Images - 1, or Welch-Satterthwaite's combination if there are several levels."""
        squares = self._variances**2 / (self._counts - 1)
        if not squares.any():
            return float(self._counts[0] - 1)
        return float(self._variances.sum() ** 2 / squares.sum())

    @cached_property
    def _counts(self) -> np.ndarray:
        return np.array([len(level) for level in self.influence])

    @cached_property
    def _variances(self) -> np.ndarray:
        """Unbiased variance of the estimate due to each level, (levels,)."""
        sums = np.array([np.sum(level**2) for level in self.influence])
        variances: np.ndarray = sums * self._counts / (self._counts - 1)
        return variances

    @property
    def _widening(self) -> float:
        """Unbiased over bootstrap standard error; sqrt(n / (n - 1)) if only n images are drawn."""
        biased = np.sum(np.concatenate(self.influence) ** 2)
        return float(np.sqrt(self._variances.sum() / biased)) if biased else 1.0

    @property
    def _bias(self) -> float:
        """BCa's z0: the normal quantile of the share of resamples below the estimate."""
        above = np.round(self.draws - self.estimate, TIE_DECIMALS)
        below = (above < 0).sum() + 0.5 * (above == 0).sum()
        return float(ndtri((below + 0.5) / (len(self.draws) + 1)))

    @property
    def _acceleration(self) -> float:
        """BCa's a: one sixth of the skewness of all influences, between -1/6 and 1/6."""
        influence = np.concatenate(self.influence)
        squares = np.sum(influence**2)
        return float(np.sum(influence**3) / (6 * squares**1.5)) if squares else 0.0


def resample_mean(values: np.ndarray, images: np.ndarray, resampling: Resampling) -> Resampled:
    """The mean of `values`, (n,) or (seeds, n), resampled over `images` (n,) and seeds.

    Raises:
        ResultError: as `means_over_images`.
    """
    means = means_over_images(values, images, resampling)
    pooled = pool_seeds(means.plain, means.draws, resampling)
    return Resampled(
        pooled.estimate, pooled.draws, [means.influence.mean(axis=0), *pooled.influence]
    )


def resample_difference(
    a: np.ndarray, b: np.ndarray, images: np.ndarray, resampling: Resampling
) -> Resampled:
    """Mean of `a` minus mean of `b`, each (n,) or (seeds, n), with the same rows in the same order.

    Both use the same resampled images. Their seeds, which may differ in number, are resampled
    independently.

    Raises:
        ResultError: the numbers of rows differ, or as `means_over_images`.
    """
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    if a.shape[1] != b.shape[1]:
        raise _unusable(f"{a.shape[1]} and {b.shape[1]} values", "the same rows in both")
    means = means_over_images(np.concatenate([a, b]), images, resampling)
    ours, theirs = slice(len(a)), slice(len(a), None)
    first = pool_seeds(means.plain[ours], means.draws[:, ours], resampling)
    second = pool_seeds(means.plain[theirs], means.draws[:, theirs], resampling, OTHER_SEEDS)
    influence = means.influence[ours].mean(axis=0) - means.influence[theirs].mean(axis=0)
    return Resampled(
        estimate=first.estimate - second.estimate,
        draws=first.draws - second.draws,
        influence=[influence, *first.influence, *second.influence],
    )


def means_over_images(
    values: np.ndarray, images: np.ndarray, resampling: Resampling, stream: int = IMAGES
) -> Means:
    """Mean of each column of `values`, (n,) or (columns, n), resampled over `images` (n,).

    Two calls with equally many images, equal settings and the same `stream` make the same draws.

    Raises:
        ResultError: no values, a NaN or infinite one, lengths differ, or fewer than two images.
    """
    values = np.atleast_2d(np.asarray(values, dtype=np.float64))
    which = _number_images(values, images)
    rows = np.bincount(which).astype(np.float64)
    sums = np.stack([np.bincount(which, weights=column) for column in values], axis=1)
    plain = values.mean(axis=1)
    drawn = _drawn_totals(np.column_stack([sums, rows]), resampling, stream)
    return Means(
        plain=plain,
        draws=drawn[:, :-1] / drawn[:, -1:],
        influence=(sums - np.outer(rows, plain)).T / len(which),
    )


def pool_seeds(
    plain: np.ndarray, draws: np.ndarray, resampling: Resampling, stream: int = SEEDS
) -> Resampled:
    """Mean over seeds of `plain` (seeds,) and `draws` (resamples, seeds), resampling the seeds.

    A single seed is not resampled, and `influence` then has no level.
    """
    seeds = len(plain)
    if seeds == 1:
        return Resampled(float(plain[0]), draws[:, 0], [])
    rng = np.random.default_rng([resampling.seed, stream])
    times = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(draws))
    mean = float(plain.mean())
    return Resampled(mean, (times * draws).sum(axis=1) / seeds, [(plain - mean) / seeds])


def _drawn_totals(totals: np.ndarray, resampling: Resampling, stream: int) -> np.ndarray:
    """Sums of `totals` (images, k) over the images drawn in each resample, (resamples, k)."""
    count = len(totals)
    rng = np.random.default_rng([resampling.seed, stream])
    at_once = max(1, DRAWS_AT_ONCE // count)
    drawn = []
    for start in range(0, resampling.resamples, at_once):
        size = min(at_once, resampling.resamples - start)
        picks = rng.integers(count, size=(size, count))
        picks += count * np.arange(size)[:, None]  # so that one bincount counts all resamples
        times = np.bincount(picks.ravel(), minlength=size * count).reshape(size, count)
        drawn.append(times @ totals)
    return np.concatenate(drawn)


def _number_images(values: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The index (n,) of each row's image among the sorted image names."""
    rows = values.shape[1]
    if rows == 0:
        raise _unusable("no values", "at least two images")
    if np.shape(images) != (rows,):
        raise _unusable(f"{rows} values and {np.shape(images)} images", "one image per value")
    broken = np.flatnonzero(~np.isfinite(values).all(axis=0))
    if len(broken):
        raise _unusable(f"{values[:, broken[0]]} in row {broken[0] + 1}", "finite values")
    names, which = np.unique(images, return_inverse=True)
    if len(names) < 2:
        raise _unusable("1 image", "two or more")
    return which


def _unusable(got: str, need: str) -> ResultError:
    return ResultError(
        got=got,
        need=need,
        because="the interval is estimated from the spread between images",
        do="check that the result files are whole and of one dataset",
    )
