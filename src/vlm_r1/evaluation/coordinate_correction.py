"""Coordinates or grounding? One scale and offset per axis, fitted robustly and cross-validated.

A model can point at the right thing and still miss it, because its boxes are in a slightly other
coordinate space than the true ones (another resize than in training, input pixels read as original
ones). What one scale and offset per axis repairs is a matter of coordinates; what is left is
grounding. Numpy and scipy only.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats

from vlm_r1.evaluation.coordinate_space_check import check_coordinate_space, in_original
from vlm_r1.rec.boxes import area, iou, is_hit
from vlm_r1.stats.intervals import Difference, Resampling, interval, paired_difference

MIN_IMAGES = 5  # with a box in each half; four numbers are fitted to them
PAIRS = 300  # starts; at 80 % wrong groundings 12 of them are expected to be made of right ones
# A fit must raise the mean IoU by this many standard errors: four numbers fitted to noise raise
# twice the log-likelihood by a chi-squared of four degrees of freedom, below 3.08 ** 2 in 95 %.
MIN_GAIN_IN_ERRORS = float(np.sqrt(stats.chi2.ppf(0.95, df=4)))


@dataclass(frozen=True)
class Affine:
    """corrected = scale * coordinate + offset, (x, y) each; offsets in pixels."""

    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    def apply(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (..., 4) corrected; NaN stays NaN."""
        return np.asarray(boxes) * (*self.scale, *self.scale) + (*self.offset, *self.offset)


@dataclass(frozen=True)
class Correction:
    """Boxes of one unit, each corrected by what was fitted on the other half of the images.

    Attributes:
        boxes: (n, 4) xyxy, original pixels; NaN where there was none.
        raw_hit, hit: bool (n,), IoU above 0.5 before and after.
        halves: the two fits; either is the identity where nothing better was found.
        reason: why both are the identity, else None.
    """

    boxes: np.ndarray
    raw_hit: np.ndarray
    hit: np.ndarray
    halves: tuple[Affine, Affine]
    reason: str | None

    @property
    def scale(self) -> tuple[float, float]:
        """(x, y), mean of the two fits."""
        return tuple(np.mean([half.scale for half in self.halves], axis=0).tolist())

    @property
    def offset(self) -> tuple[float, float]:
        """(x, y) in pixels, mean of the two fits."""
        return tuple(np.mean([half.offset for half in self.halves], axis=0).tolist())


@dataclass(frozen=True)
class Decomposition:
    """A difference in accuracy = box coordinates + grounding, percent points; they add up."""

    total: Difference
    coordinates: Difference
    grounding: Difference


def correct_boxes(
    boxes: np.ndarray, truth: np.ndarray, images: np.ndarray, seed: int = 0
) -> Correction:
    """Correct each half of the images by the scale and offset that fit the other half best.

    The fit maximizes the mean IoU. IoU is bounded, so a wrong grounding (IoU near 0 under any
    small change) does not steer it, and nothing needs to be tuned. It is kept only if it beats the
    boxes as they are, and any one constant box, by more than four numbers fitted to noise would.

    Args:
        boxes: predicted (n, 4), xyxy, original pixels; NaN where unparsed.
        truth: true (n, 4), in the same pixels.
        images: the cluster of each row (n,).
        seed: of the halves and of the fits' starts; the order of the rows does not matter.
    """
    boxes, truth = np.asarray(boxes, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    images = np.asarray(images)
    ordered = np.lexsort((*boxes.T, *truth.T, images))
    usable = ordered[_has_area(boxes[ordered]) & _has_area(truth[ordered])]
    in_first = _in_first_half(images, seed)
    corrected, fits, reasons = boxes.copy(), [], []
    for fitted_on in (in_first, ~in_first):
        rows = usable[fitted_on[usable]]
        fit, reason = _fit_half(boxes[rows], truth[rows], images[rows], seed)
        corrected[~fitted_on] = fit.apply(boxes[~fitted_on])
        fits.append(fit)
        reasons.append(reason)
    return Correction(
        boxes=corrected,
        raw_hit=is_hit(iou(boxes, truth)),
        hit=is_hit(iou(corrected, truth)),
        halves=(fits[0], fits[1]),
        reason=reasons[0] if None not in reasons else None,
    )


def accuracy_recovered(
    correction: Correction, images: np.ndarray, resampling: Resampling
) -> Difference:
    """Points of accuracy that the correction recovers, paired over images, fits held fixed."""
    return paired_difference(correction.hit, correction.raw_hit, images, resampling)


def decompose_difference(
    start: Correction, end: Correction, images: np.ndarray, resampling: Resampling
) -> Decomposition:
    """Raw accuracy of `end` minus `start`, on the same rows, split in two.

    Grounding is the difference in corrected accuracy. Coordinates is the rest: accuracy that is
    lost (or won) because the correction has more (or less) to recover.
    """
    lost = [1.0 * unit.raw_hit - unit.hit for unit in (end, start)]
    return Decomposition(
        total=paired_difference(end.raw_hit, start.raw_hit, images, resampling),
        coordinates=paired_difference(*lost, images, resampling),
        grounding=paired_difference(end.hit, start.hit, images, resampling),
    )


def coordinate_space_block(
    written: np.ndarray,
    truth: np.ndarray,
    image_sizes: np.ndarray | None,
    input_sizes: np.ndarray | None,
    images: np.ndarray,
    assumed: str,
    resampling: Resampling | None = None,
) -> dict[str, Any]:
    """What `vlm-r1 score --json` says of the coordinate space; arguments as in `coordinate spaces.check_coordinate_space`.

    Returns:
        {assumed, best, corrected_accuracy, corrected_ci_low, corrected_ci_high}: coordinate spaces'
        names and percent; the interval is None where there is one image.

    Raises:
        ResultError: the assumed coordinate space needs sizes that are not given.
    """
    resampling = resampling or Resampling()
    finding = check_coordinate_space(
        written, truth, image_sizes, input_sizes, images, assumed, resampling
    )
    boxes = in_original(written, assumed, image_sizes, input_sizes)
    hit = correct_boxes(boxes, truth, images).hit
    low = high = None
    if len(set(images)) > 1:
        _, low, high = interval(hit, images, resampling)
    return {
        "assumed": assumed,
        "best": finding.best,
        "corrected_accuracy": 100 * float(hit.mean()),
        "corrected_ci_low": low,
        "corrected_ci_high": high,
    }


def _has_area(boxes: np.ndarray) -> np.ndarray:
    """Bool (n,): finite boxes with positive area."""
    return np.isfinite(boxes).all(axis=1) & (area(boxes) > 0)


def _in_first_half(images: np.ndarray, seed: int) -> np.ndarray:
    """Bool (n,): rows of a random half of the images; the same for every unit of a dataset."""
    names, image_of_row = np.unique(images, return_inverse=True)
    rank = np.random.default_rng(seed).permutation(len(names))
    return (rank < len(names) // 2)[image_of_row]


def _fit_half(
    boxes: np.ndarray, truth: np.ndarray, images: np.ndarray, seed: int
) -> tuple[Affine, str | None]:
    """The best correction of these rows, or the identity and why."""
    count = len(set(images))
    if count < MIN_IMAGES:
        return Affine(), f"a half has boxes on {count} images, fewer than {MIN_IMAGES}"
    best = _fit(boxes, truth, seed)
    overlap = iou(best.apply(boxes), truth)
    one_box = np.tile([0.0, 0.0, 1.0, 1.0], (len(boxes), 1))
    constant = iou(_fit(one_box, truth, seed).apply(one_box), truth)
    if _gain_in_errors(overlap - constant, images) < MIN_GAIN_IN_ERRORS:
        return Affine(), "no scale and offset fit better than one constant box"
    if _gain_in_errors(overlap - iou(boxes, truth), images) < MIN_GAIN_IN_ERRORS:
        return Affine(), "no scale and offset fit better than the boxes as they are"
    return best, None


def _fit(boxes: np.ndarray, truth: np.ndarray, seed: int) -> Affine:
    """The scale and offset per axis with the highest mean IoU, boxes (m, 4) of positive area.

    Starts are the identity and the exact fits of random pairs of boxes, as in RANSAC (Fischler and
    Bolles 1981); the best one is climbed from by Nelder and Mead's simplex (1965).
    """
    pairs = np.random.default_rng(seed).integers(len(boxes), size=(PAIRS, 2))
    starts = [Affine(), *(_least_squares(boxes[pair], truth[pair]) for pair in pairs)]
    start = max(starts, key=lambda fit: iou(fit.apply(boxes), truth).mean())
    return _climb(boxes, truth, start)


def _least_squares(boxes: np.ndarray, truth: np.ndarray) -> Affine:
    """The scale and offset per axis of a few boxes (m, 4) of positive area."""
    x, y = boxes.reshape(-1, 2), truth.reshape(-1, 2)  # corners of all boxes, (2m, 2)
    centerd = x - x.mean(axis=0)
    scale = (centerd * y).sum(axis=0) / (centerd**2).sum(axis=0)
    return Affine(tuple(scale), tuple(y.mean(axis=0) - scale * x.mean(axis=0)))


def _climb(boxes: np.ndarray, truth: np.ndarray, start: Affine) -> Affine:
    """A local maximum of the mean IoU.

    Searched over where two anchors per axis (10th and 90th percentile of the coordinates) go, in
    units of a true box's side: steps of 0.1 are then small and alike in all four directions.
    """
    low, high = np.percentile(boxes.reshape(-1, 2), [10, 90], axis=0)
    side_px = np.median(truth[:, 2:] - truth[:, :2], axis=0)

    def affine(position: np.ndarray) -> Affine:
        at_low, at_high = position[:2] * side_px, position[2:] * side_px
        scale = (at_high - at_low) / (high - low)
        return Affine(tuple(scale.tolist()), tuple((at_low - scale * low).tolist()))

    anchors = [(np.array(start.scale) * anchor + start.offset) / side_px for anchor in (low, high)]
    origin = np.concatenate(anchors)
    found = optimize.minimize(
        lambda position: -iou(affine(position).apply(boxes), truth).mean(),
        origin,
        method="Nelder-Mead",
        options={
            "initial_simplex": np.vstack([origin, origin + 0.1 * np.eye(4)]),
            "xatol": 1e-3,
            "fatol": 1e-5,
        },
    )
    return affine(found.x)


def _gain_in_errors(gain: np.ndarray, images: np.ndarray) -> float:
    """Mean of `gain` (m,) over its standard error, clustered by image; 0 where no row gains."""
    _, image_of_row = np.unique(images, return_inverse=True)
    deviations = np.bincount(image_of_row, weights=gain - gain.mean())
    error = np.sqrt((deviations**2).sum())
    if gain.sum() <= 0:
        return 0.0
    return float(gain.sum() / error) if error > 0 else np.inf
