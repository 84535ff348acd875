"""Coordinates or grounding? One scale and offset per axis, fitted robustly and cross-validated.

A model can point at the right object and still miss, because its boxes are in a slightly different
coordinate space than the true ones (another resize than in training, input pixels read as original
ones). What one scale and offset per axis repairs counts as a coordinate error; what remains is
grounding. Numpy and scipy only.
"""

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from vlm_r1.evaluation.scores import Scores
from vlm_r1.rec.boxes import area, iou, is_hit
from vlm_r1.stats.intervals import Difference, paired_difference

MIN_IMAGES = 5  # with a box, in each half, to fit the four parameters to
PAIRS = 300  # random starts; at 80 % wrong groundings, about 12 consist of two right ones
# A fit must raise the mean IoU by this many standard errors: four parameters fitted to noise raise
# twice the log-likelihood by a chi-squared with 4 degrees of freedom, in 95 % below 3.08 ** 2.
MIN_GAIN_IN_ERRORS = float(np.sqrt(stats.chi2.ppf(0.95, df=4)))


@dataclass(frozen=True)
class Affine:
    """corrected = scale * coordinate + offset, (x, y) each; offsets in pixels."""

    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    def apply(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (..., 4) corrected; NaN stays NaN."""
        scale, offset = np.array(self.scale * 2), np.array(self.offset * 2)
        corrected: np.ndarray = np.asarray(boxes) * scale + offset
        return corrected


@dataclass(frozen=True)
class Correction:
    """Boxes of one result, each corrected by the fit on the other half of the images.

    Attributes:
        boxes: (n, 4) xyxy, original pixels; NaN where unparsed.
        raw_hit, hit: bool (n,), IoU above 0.5 before and after the correction.
        halves: the two fits (of several seeds: two each); the identity if no fit was better.
        reason: why all fits are the identity, else None.

    Of several seeds the arrays have a leading axis (seeds, ...).
    """

    boxes: np.ndarray
    raw_hit: np.ndarray
    hit: np.ndarray
    halves: tuple[Affine, ...]
    reason: str | None

    @property
    def scale(self) -> tuple[float, float]:
        """(x, y), mean of the fits."""
        x, y = np.mean([half.scale for half in self.halves], axis=0)
        return float(x), float(y)

    @property
    def offset(self) -> tuple[float, float]:
        """(x, y) in pixels, mean of the fits."""
        x, y = np.mean([half.offset for half in self.halves], axis=0)
        return float(x), float(y)


@dataclass(frozen=True)
class Decomposition:
    """A difference in accuracy as the sum of coordinates and grounding, percent points."""

    total: Difference
    coordinates: Difference
    grounding: Difference


def correct_boxes(
    boxes: np.ndarray, true_boxes: np.ndarray, images: np.ndarray, seed: int = 0
) -> Correction:
    """Correct each half of the images by the scale and offset fitted on the other half.

    The fit maximizes the mean IoU. IoU is bounded, so a wrong grounding (IoU near 0 under any small
    change) has no pull on the fit, and no threshold has to be tuned. A fit is kept only if it beats
    both the uncorrected boxes and the best constant box by more than four parameters fitted to
    noise would.

    Args:
        boxes: predicted (n, 4), xyxy, original pixels; NaN where unparsed.
        true_boxes: (n, 4), xyxy, original pixels.
        images: (n,), the image (cluster) of each row.
        seed: of the halves and of the random starts; the order of the rows does not matter.
    """
    boxes, true_boxes = (
        np.asarray(boxes, dtype=np.float64),
        np.asarray(true_boxes, dtype=np.float64),
    )
    images = np.asarray(images)
    ordered = np.lexsort((*boxes.T, *true_boxes.T, images))
    usable = ordered[_has_area(boxes[ordered]) & _has_area(true_boxes[ordered])]
    in_first = _in_first_half(images, seed)
    corrected, fits, reasons = boxes.copy(), [], []
    for fitted_on in (in_first, ~in_first):
        rows = usable[fitted_on[usable]]
        fit, reason = _fit_half(boxes[rows], true_boxes[rows], images[rows], seed)
        corrected[~fitted_on] = fit.apply(boxes[~fitted_on])
        fits.append(fit)
        reasons.append(reason)
    return Correction(
        boxes=corrected,
        raw_hit=is_hit(iou(boxes, true_boxes)),
        hit=is_hit(iou(corrected, true_boxes)),
        halves=(fits[0], fits[1]),
        reason=reasons[0] if None not in reasons else None,
    )


def correction_of(scores: Scores) -> Correction:
    """The correction of a result's boxes; of one with detection rows, none.

    Whether such a row is correct is decided by all its boxes, and `boxes` are only around them.
    """
    if scores.objects is None:
        return correct_boxes(scores.boxes, scores.true_boxes, scores.images)
    reason = "answers with several boxes are not corrected"
    return Correction(scores.boxes, scores.hit, scores.hit, (Affine(), Affine()), reason)


def accuracy_recovered(correction: Correction, images: np.ndarray, confidence: float) -> Difference:
    """Accuracy after minus before the correction, paired by image, with the fits held fixed."""
    return paired_difference(correction.hit, correction.raw_hit, images, confidence)


def decompose_difference(
    start: Correction, end: Correction, images: np.ndarray, confidence: float
) -> Decomposition:
    """Raw accuracy of `end` minus `start` on the same rows, as coordinates + grounding.

    Grounding is the difference in corrected accuracy. Coordinates is the rest: the change in what
    the correction recovers.
    """
    end_lost, start_lost = (1.0 * part.raw_hit - part.hit for part in (end, start))
    return Decomposition(
        total=paired_difference(end.raw_hit, start.raw_hit, images, confidence),
        coordinates=paired_difference(end_lost, start_lost, images, confidence),
        grounding=paired_difference(end.hit, start.hit, images, confidence),
    )


def _has_area(boxes: np.ndarray) -> np.ndarray:
    """Bool (n,): True for finite boxes with positive area."""
    usable: np.ndarray = np.isfinite(boxes).all(axis=1) & (area(boxes) > 0)
    return usable


def _in_first_half(images: np.ndarray, seed: int) -> np.ndarray:
    """Bool (n,): rows of a random half of the images; the same for every result on a dataset."""
    names, image_of_row = np.unique(images, return_inverse=True)
    rank = np.random.default_rng(seed).permutation(len(names))
    in_first: np.ndarray = (rank < len(names) // 2)[image_of_row]
    return in_first


def _fit_half(
    boxes: np.ndarray, true_boxes: np.ndarray, images: np.ndarray, seed: int
) -> tuple[Affine, str | None]:
    """The best correction of these rows, or the identity with the reason."""
    count = len(set(images))
    if count < MIN_IMAGES:
        return Affine(), f"a half has boxes on {count} images, fewer than {MIN_IMAGES}"
    best = _fit(boxes, true_boxes, seed)
    overlap = iou(best.apply(boxes), true_boxes)
    one_box = np.tile([0.0, 0.0, 1.0, 1.0], (len(boxes), 1))
    constant = iou(_fit(one_box, true_boxes, seed).apply(one_box), true_boxes)
    if _gain_in_errors(overlap - constant, images) < MIN_GAIN_IN_ERRORS:
        return Affine(), "no scale and offset fit better than one constant box"
    if _gain_in_errors(overlap - iou(boxes, true_boxes), images) < MIN_GAIN_IN_ERRORS:
        return Affine(), "no scale and offset fit better than the boxes as they are"
    return best, None


def _fit(boxes: np.ndarray, true_boxes: np.ndarray, seed: int) -> Affine:
    """The scale and offset per axis with the highest mean IoU; boxes (m, 4) with positive area.

    Candidates are the identity and least-squares fits to random pairs of boxes, as in RANSAC
    (Fischler and Bolles 1981); the best one is refined by Nelder and Mead's simplex (1965).
    """
    pairs = np.random.default_rng(seed).integers(len(boxes), size=(PAIRS, 2))
    starts = [Affine(), *(_least_squares(boxes[pair], true_boxes[pair]) for pair in pairs)]
    start = max(starts, key=lambda fit: iou(fit.apply(boxes), true_boxes).mean())
    return _climb(boxes, true_boxes, start)


def _least_squares(boxes: np.ndarray, true_boxes: np.ndarray) -> Affine:
    """The least-squares scale and offset per axis of boxes (m, 4) with positive area."""
    x, y = boxes.reshape(-1, 2), true_boxes.reshape(-1, 2)  # corners of all boxes, (2m, 2)
    centered = x - x.mean(axis=0)
    scale = (centered * y).sum(axis=0) / (centered**2).sum(axis=0)
    return _affine(scale, y.mean(axis=0) - scale * x.mean(axis=0))


def _climb(boxes: np.ndarray, true_boxes: np.ndarray, start: Affine) -> Affine:
    """A local maximum of the mean IoU near `start`.

    The search is over the positions to which two anchors per axis (10th and 90th percentile of the
    coordinates) are moved, in units of a true box's side, so that a step of 0.1 is small and means
    the same in all four directions.
    """
    low, high = np.percentile(boxes.reshape(-1, 2), [10, 90], axis=0)
    side_px = np.median(true_boxes[:, 2:] - true_boxes[:, :2], axis=0)

    def affine(position: np.ndarray) -> Affine:
        at_low, at_high = position[:2] * side_px, position[2:] * side_px
        scale = (at_high - at_low) / (high - low)
        return _affine(scale, at_low - scale * low)

    def loss(position: np.ndarray) -> float:
        return -float(iou(affine(position).apply(boxes), true_boxes).mean())

    anchors = [(np.array(start.scale) * anchor + start.offset) / side_px for anchor in (low, high)]
    origin = np.concatenate(anchors)
    simplex = np.vstack([origin, origin + 0.1 * np.eye(4)])
    found = optimize.minimize(
        loss,
        origin,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-5},
    )
    return affine(found.x)


def _affine(scale: np.ndarray, offset: np.ndarray) -> Affine:
    """`Affine` of two arrays (x, y)."""
    (scale_x, scale_y), (offset_x, offset_y) = scale.tolist(), offset.tolist()
    return Affine((scale_x, scale_y), (offset_x, offset_y))


def _gain_in_errors(gain: np.ndarray, images: np.ndarray) -> float:
    """Mean `gain` (m,) over its standard error, clustered by image; 0 if it is not positive."""
    _, image_of_row = np.unique(images, return_inverse=True)
    deviations = np.bincount(image_of_row, weights=gain - gain.mean())
    error = np.sqrt((deviations**2).sum())
    if gain.sum() <= 0:
        return 0.0
    return float(gain.sum() / error) if error > 0 else np.inf
