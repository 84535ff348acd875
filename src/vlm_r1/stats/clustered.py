"""Means over rows that come in clusters, and how sure they are. Numpy and scipy only.

Expressions about one image succeed and fail together, so images are the units of sampling, not
rows. A mean over rows is then a ratio, sum of values / number of rows, both summed over images, and
its variance is that of the images' influence on it: the cluster-robust ("sandwich") variance of
Liang and Zeger (1986), Biometrika 73, as Miller (2024), arXiv 2411.00640, recommends for
evaluations of language models. Several training runs are a second level of sampling, whose variance
is added (as in Owen 2007, Ann. Appl. Stat. 1(2)). Inside this module means are 0-1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from vlm_r1.errors import ResultError

DEFAULT_CONFIDENCE = 0.95
MOST_EXACT = 2000  # clusters up to which signs are flipped exactly
MOST_ENUMERATED = 16  # the same where sums are no whole numbers: 2**16 sign patterns
WHOLE = 1e-9  # sums this close to whole numbers are whole


@dataclass(frozen=True)
class Term:
    """Values that take part in a `contrast`: their mean, times `weight`.

    Attributes:
        values: (n,), or (runs, n) for several training runs.
        images: (n,), the image (cluster) of each row.
        sample: terms of one sample share its images; images of two samples are different ones.
        runs: terms of one name come from the same training runs, in one order.
    """

    weight: float
    values: np.ndarray
    images: np.ndarray
    sample: str = ""
    runs: str = ""


@dataclass(frozen=True)
class ClusteredMean:
    """A mean, or a difference of means, with its spread.

    Attributes:
        estimate: the mean itself.
        levels: influence of each unit on it, an array a level of sampling; each sums to 0.
        signed: per image, its part of a difference that is 0 if nothing differs; what
            `sign_flip_p` takes.
        rows: number of rows of all terms.
    """

    estimate: float
    levels: list[np.ndarray]
    signed: np.ndarray
    rows: int

    @cached_property
    def standard_error(self) -> float:
        """Of the estimate, all levels together."""
        return float(np.sqrt(self._variances.sum()))

    @cached_property
    def degrees_of_freedom(self) -> float:
        """Units - 1; Welch and Satterthwaite's combination of several levels."""
        counts = np.array([len(level) for level in self.levels])
        squares = (self._variances**2 / (counts - 1)).sum()
        return float(self._variances.sum() ** 2 / squares) if squares else float(counts[0] - 1)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Student's t interval, stretched to 0 where the sign-flip test does not rule 0 out.

        If all rows have the same value there is no spread to estimate. Then the half width is the
        share of images, 1 - (alpha / 2)**(1 / images), of which none would be seen with probability
        alpha / 2 (Clopper and Pearson 1934, Biometrika 26).
        """
        alpha = 1 - confidence
        if self.standard_error == 0:
            half = float(1 - (alpha / 2) ** (1 / len(self.levels[0])))
        else:
            t = float(stats.t.ppf(1 - alpha / 2, self.degrees_of_freedom))
            half = t * self.standard_error
        low, high = self.estimate - half, self.estimate + half
        if self._sign_flip_p >= alpha:
            low, high = min(low, 0.0), max(high, 0.0)
        return low, high

    def share_interval(self, confidence: float) -> tuple[float, float]:
        """Interval of a share (0-1): Wilson's, for the effective number of rows.

        The effective number is p (1 - p) / variance (Korn and Graubard 1998, Survey Methodology
        24), at most the rows there are; the number of images where all rows agree. Source: Wilson
        (1927), JASA 22, with t in place of z (Dean and Pagano 2015, J. Surv. Stat. Methodol. 3).

        Example: 100 of 100 images right -> 96.2 to 100 %
        """
        p, variance = self.estimate, self.standard_error**2
        n = min(p * (1 - p) / variance, self.rows) if variance else len(self.levels[0])
        t = float(stats.t.ppf(0.5 + confidence / 2, self.degrees_of_freedom))
        middle = (p + t**2 / (2 * n)) / (1 + t**2 / n)
        half = t * np.sqrt(p * (1 - p) / n + t**2 / (4 * n**2)) / (1 + t**2 / n)
        return max(0.0, float(middle - half)), min(1.0, float(middle + half))

    def p_value(self) -> float:
        """Two-sided p of 0: the larger of Student's t and the sign-flip test."""
        if self.standard_error == 0:
            return self._sign_flip_p
        t = abs(self.estimate) / self.standard_error
        return max(2 * float(stats.t.sf(t, self.degrees_of_freedom)), self._sign_flip_p)

    @cached_property
    def _sign_flip_p(self) -> float:
        """Kept, because interval and p both need it and 2000 images take 15 ms."""
        return sign_flip_p(self.signed)

    @cached_property
    def _variances(self) -> np.ndarray:
        """Unbiased variance by level, (levels,)."""
        found = [np.sum(level**2) * len(level) / (len(level) - 1) for level in self.levels]
        return np.array(found)


def mean_over_images(values: np.ndarray, images: np.ndarray) -> ClusteredMean:
    """The mean of `values`, (n,) or (runs, n), over `images` (n,) and runs.

    Raises:
        ResultError: as `contrast`.
    """
    return contrast([Term(1.0, values, images)])


def difference_over_images(a: np.ndarray, b: np.ndarray, images: np.ndarray) -> ClusteredMean:
    """Mean of `a` minus mean of `b`, each (n,) or (runs, n), the same rows in the same order.

    Raises:
        ResultError: the numbers of rows differ, or as `contrast`.
    """
    if np.shape(a)[-1:] != np.shape(b)[-1:]:
        raise unusable(f"{np.shape(a)[-1]} and {np.shape(b)[-1]} values", "the same rows in both")
    return contrast([Term(1.0, a, images, runs="a"), Term(-1.0, b, images, runs="b")])


def contrast(terms: Sequence[Term]) -> ClusteredMean:
    """The sum of weight * mean over all terms, with the spread over their images and runs.

    Each sample of images and each set of training runs is a level of sampling: what its images (or
    runs) contribute to several terms is added up before it is squared, so that terms on the same
    images, or of the same runs, are paired.

    Raises:
        ResultError: no values, a NaN or infinite one, lengths differ, fewer than two images in a
            term, or different numbers of runs under one name.

    Example: gain in domain minus gain out of domain of one method -> weights 1 and -1, two samples,
        one name of runs
    """
    samples: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    runs: dict[str, list[np.ndarray]] = {}
    estimate, rows = 0.0, 0
    for term in terms:
        values = np.atleast_2d(np.asarray(term.values, dtype=np.float64))
        names, which = _images(values, term.images)
        mean, totals = values.mean(), np.bincount(which, weights=values.mean(axis=0))
        counts = np.bincount(which)
        estimate += term.weight * float(mean)
        rows += values.shape[1]
        pull = term.weight * (totals - counts * mean) / counts.sum()
        share = term.weight * totals / counts.sum()
        samples.setdefault(term.sample, []).append((names, pull, share))
        runs.setdefault(term.runs, []).append(term.weight * values.mean(axis=1))
    pulls, shares = zip(*(_by_image(parts) for parts in samples.values()), strict=True)
    levels_of_runs = [_level_of_runs(means) for means in runs.values()]
    return ClusteredMean(
        estimate, [*pulls, *filter(len, levels_of_runs)], np.concatenate(shares), rows
    )


def sign_flip_p(signed: np.ndarray) -> float:
    """Exact two-sided p of a sum, were the sign of each part as likely + as -.

    The permutation test of paired data (Fisher 1935, The Design of Experiments, section 21), with
    images as the pairs. Exact where the parts are multiples of one number, as differences of hits
    are, up to MOST_EXACT parts that are not 0; by the normal distribution beyond.

    Example: 5 images differ, all in one direction -> p = 2 / 2**5 = 0.0625
    """
    parts = np.abs(signed[np.abs(signed) > WHOLE * np.abs(signed).max(initial=0)])
    total = abs(float(signed.sum()))
    if not len(parts):
        return 1.0
    scaled = parts / parts.min()
    for multiple in range(1, 13):  # several runs make fractions: of two and of three, and so on
        whole = np.round(scaled * multiple)
        if np.allclose(whole, scaled * multiple, atol=1e-6) and len(parts) <= MOST_EXACT:
            return _whole_sign_flip_p(whole.astype(int), round(total / parts.min() * multiple))
    if len(parts) <= MOST_ENUMERATED:
        patterns = np.indices((2,) * len(parts)).reshape(len(parts), -1) * 2 - 1
        return float(np.mean(np.abs(parts @ patterns) >= total * (1 - WHOLE)))
    return min(1.0, 2 * float(stats.norm.sf(total / np.sqrt(np.sum(parts**2)))))


def discordant_images(a: np.ndarray, b: np.ndarray, images: np.ndarray) -> int:
    """On how many images `a` and `b`, each (n,) or (runs, n), differ: the signs that can flip."""
    of_row = np.atleast_2d(a).mean(axis=0) - np.atleast_2d(b).mean(axis=0)
    _, which = np.unique(images, return_inverse=True)
    return int((np.abs(np.bincount(which, weights=of_row)) > WHOLE).sum())


def min_discordant_images(confidence: float) -> int:
    """The fewest discordant images with which a sign-flip p can be below 1 - confidence.

    Example: 95 % -> 6, since 2 / 2**5 = .0625 and 2 / 2**6 = .031
    """
    return math.floor(1 - math.log2(1 - confidence)) + 1


def _whole_sign_flip_p(parts: np.ndarray, total: int) -> float:
    """`sign_flip_p` of whole numbers: the distribution of their sum, part by part."""
    chance = np.ones(1)  # of each sum from -s to s, s the parts so far
    for part in parts:
        wider = np.zeros(len(chance) + 2 * part)
        wider[: len(chance)] += chance / 2
        wider[2 * part :] += chance / 2
        chance = wider
    sums = np.arange(len(chance)) - len(chance) // 2
    return min(1.0, float(chance[np.abs(sums) >= total].sum()))


def _by_image(
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """(names, pull, share) of each term of one sample -> pull and share summed up by image."""
    names = np.concatenate([names for names, _, _ in parts])
    _, which = np.unique(names, return_inverse=True)
    pull, share = (np.concatenate(arrays) for arrays in list(zip(*parts, strict=True))[1:])
    return np.bincount(which, weights=pull), np.bincount(which, weights=share)


def _level_of_runs(means: list[np.ndarray]) -> np.ndarray:
    """The influence of each training run, (runs,), from its weighted means; empty for one run."""
    if len({len(mean) for mean in means}) > 1:
        counts = " and ".join(str(len(mean)) for mean in means)
        raise unusable(f"{counts} runs", "the same runs in all")
    run_sums = np.sum(means, axis=0)
    influence: np.ndarray = (run_sums - run_sums.mean()) / len(run_sums)
    return influence if len(influence) > 1 else influence[:0]


def _images(values: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images' names in order, and the number (n,) of each row's image among them."""
    rows = values.shape[1]
    if rows == 0:
        raise unusable("no values", "at least two images")
    if np.shape(images) != (rows,):
        raise unusable(f"{rows} values and {np.shape(images)} images", "an image a value")
    broken = np.flatnonzero(~np.isfinite(values).all(axis=0))
    if len(broken):
        raise unusable(f"{values[:, broken[0]]} in row {broken[0] + 1}", "finite values")
    names, which = np.unique(images, return_inverse=True)
    if len(names) < 2:
        raise unusable("1 image", "two or more")
    return names, which


def unusable(got: str, need: str) -> ResultError:
    """A mean without a spread."""
    return ResultError(
        got=got,
        need=need,
        because="the spread of a mean is estimated from the differences between images",
        do="check that the result files are whole and of one dataset",
    )
