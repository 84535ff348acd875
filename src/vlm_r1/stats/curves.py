"""Statistics of curves: area, lasting lead, detectable effect, forgetting, generalization gap.

Each is linear in the rows' values, so the standard errors of `clustered` apply to all. A curve
holds hits per step, (steps, n), or (seeds, steps, n) for several training runs. Results are percent
points.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

from vlm_r1.errors import ResultError
from vlm_r1.stats.clustered import Term, contrast, difference_over_images
from vlm_r1.stats.intervals import Difference, paired_difference

POWER = 0.8


def area_between(
    steps: Sequence[int],
    a: np.ndarray,
    b: np.ndarray,
    images: np.ndarray,
    confidence: float,
) -> Difference:
    """Area between curves `a` and `b`, divided by the range of steps: the mean difference over it.

    Uses the trapezoid rule, so unequally spaced steps are weighted by their spacing.

    Raises:
        ResultError: fewer than two steps, steps not rising, a curve with another number of steps,
            or as `paired_difference`.

    Example: differences 0, 4, 4 at steps 0, 10, 30 -> (2 * 10 + 4 * 20) / 30 = 3.33 points
    """
    weights = trapezoid_weights(steps)
    a, b = (_of_all_steps(curve, weights) for curve in (a, b))
    return paired_difference(weights @ a, weights @ b, images, confidence)


def trapezoid_weights(steps: Sequence[int]) -> np.ndarray:
    """Weights (steps,) that sum to 1: weights @ y is the trapezoid integral divided by the range.

    Raises:
        ResultError: fewer than two steps, or steps not rising.

    Example: steps 0, 10, 30 -> 1/6, 1/2, 1/3
    """
    gaps = np.diff(np.asarray(steps, dtype=np.float64))
    if len(gaps) == 0 or (gaps <= 0).any():
        raise ResultError(
            got=f"steps {list(steps)}",
            need="two or more, rising",
            because="the area is taken between a first and a last step",
            do="evaluate both methods at more common steps",
        )
    weights: np.ndarray = (np.append(gaps, 0) + np.append(0, gaps)) / (2 * gaps.sum())
    return weights


def first_lasting_step(steps: Sequence[int], ahead: Sequence[bool]) -> int | None:
    """The first step from which `ahead` holds at every later step too; None if there is none.

    Example: steps 1-4, ahead (yes, no, yes, yes) -> 3
    """
    lasting = np.logical_and.accumulate(np.asarray(ahead, dtype=bool)[::-1])[::-1]
    return next((step for step, holds in zip(steps, lasting, strict=True) if holds), None)


def minimum_detectable_effect(
    a: np.ndarray,
    b: np.ndarray,
    images: np.ndarray,
    confidence: float,
    power: float = POWER,
) -> float | None:
    """The smallest true difference that this many images would detect with probability `power`.

    (t(1 - alpha / 2) + t(power)) * SE, with alpha = 1 - confidence, SE the standard error of the
    paired difference of `a` and `b`, t with its degrees of freedom (images - 1). Source: Bloom
    (1995), "Minimum detectable effects", Evaluation Review 19(5).

    None if no two answers differ, because the spread of differences is then unknown.

    Raises:
        ResultError: as `paired_difference`.

    Example: SE 1.5 points, 500 images -> (1.965 + 0.842) * 1.5 = 4.2 points
    """
    found = difference_over_images(a, b, images)
    if found.standard_error == 0:
        return None
    levels = [1 - (1 - confidence) / 2, power]
    errors = stdtrit(found.degrees_of_freedom, levels).sum()
    return 100 * float(errors) * found.standard_error


def forgetting(
    first: np.ndarray, last: np.ndarray, images: np.ndarray, confidence: float
) -> Difference:
    """Accuracy at step 0 minus accuracy at the last step; negative if training helped.

    Args:
        first, last: hits of one method, (n,) or (seeds, n); `first` may have a single row if all
            seeds start from one base.

    Raises:
        ResultError: as `paired_difference`.
    """
    return paired_difference(first, last, images, confidence)


def generalization_gap(
    id_gain: np.ndarray,
    id_images: np.ndarray,
    ood_gain: np.ndarray,
    ood_images: np.ndarray,
    confidence: float,
) -> Difference:
    """Gain in domain minus gain out of domain: 0 if everything learned carries over.

    The two datasets have different images, so the variances over images add; a training run is
    tested on both.

    Args:
        id_gain, ood_gain: hits at the last step minus hits at step 0 of one method, each -1, 0 or
            1; (n,) or (seeds, n) with the same seeds in both.

    Raises:
        ResultError: different numbers of seeds, or as `paired_difference`.
    """
    terms = [Term(1.0, id_gain, id_images, "id"), Term(-1.0, ood_gain, ood_images, "ood")]
    return Difference.of(contrast(terms), confidence)


def difference_of_gaps(
    inside: Sequence[tuple[Mapping[str, np.ndarray], np.ndarray]],
    outside: Sequence[tuple[Mapping[str, np.ndarray], np.ndarray]],
    confidence: float,
) -> Difference:
    """GRPO's generalization gap minus SFT's; below 0 where GRPO carries more of its gain over.

    Both methods answer the same rows, so their gaps are paired by image. Of several datasets each
    counts alike.

    Args:
        inside, outside: (method -> gains as in `generalization_gap`, images) of each dataset.

    Raises:
        ResultError: as `generalization_gap`.

    Example: GRPO gains 10 in domain and 8 out of it, SFT 12 and 4 -> 2 - 8 = -6 points
    """
    terms = [
        Term(weight * side / len(datasets), gains[method], images, sample, method)
        for datasets, side, sample in ((inside, 1.0, "id"), (outside, -1.0, "ood"))
        for gains, images in datasets
        for method, weight in (("grpo", 1.0), ("sft", -1.0))
    ]
    return Difference.of(contrast(terms), confidence)


def mean_over_datasets(
    pairs: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], confidence: float
) -> Difference:
    """The mean over datasets, each counting alike, of the paired difference of `a` and `b`.

    Images of one name in two datasets are taken as one image, as RefCOCO's and RefCOCO+'s are.

    Args:
        pairs: (a, b, images) of each dataset, as `paired_difference` takes them.

    Raises:
        ResultError: as `paired_difference`.

    Example: differences of 2 and 6 points on two datasets of any size -> 4 points
    """
    share = 1 / len(pairs)
    terms = [
        term
        for a, b, images in pairs
        for term in (Term(share, a, images, runs="a"), Term(-share, b, images, runs="b"))
    ]
    return Difference.of(contrast(terms), confidence)


def _of_all_steps(curve: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The curve, (..., steps, n), as floats."""
    curve = np.asarray(curve, dtype=np.float64)
    if curve.ndim < 2 or curve.shape[-2] != len(weights):
        raise ResultError(
            got=f"a curve of shape {curve.shape} at {len(weights)} steps",
            need="(steps, n) or (seeds, steps, n)",
            because="each step has its own weight in the area",
            do="give the hits at every step",
        )
    return curve
