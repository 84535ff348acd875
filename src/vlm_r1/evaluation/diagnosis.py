"""Why a log does not score what it states: coordinate space, parser or extraction. Numpy only."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

STATED_TOLERANCE = 0.05  # percent points; files round their accuracy to two digits
FULL_SIDE = {"thousand": 1000.0, "unit": 1.0}  # length of an image's side in a coordinate space
MOST_ROWS = 0.95  # share of rows that must agree before a cause is named
ROUNDING = 0.001  # of a full side: logged coordinates are truncated to whole thousandths
SIDE_SLACK = 0.98  # an implied image side may be this much of the true box's far edge
LARGEST_SIDE_PX = 20_000


class OtherReading(NamedTuple):
    """Another way to score the same rows, and the accuracy (percent) that it gives.

    `reading` says in words how the rows are read, `cause` what explains the difference if this
    reading gives the stated accuracy.
    """

    reading: str
    coordinate_space: str
    accuracy: float
    cause: str


def same_accuracy(a: float, b: float) -> bool:
    """Whether two accuracies (percent) are equal up to rounding."""
    return abs(a - b) <= STATED_TOLERANCE


def why_not_stated(
    stated: float, found: float, others: Iterable[OtherReading], untried: list[str]
) -> str:
    """One sentence: what the file states, what its rows score, and what explains the difference.

    Args:
        stated, found: percent.
        others: other readings, the likeliest first; consumed until one gives the stated accuracy.
        untried: coordinate spaces that could not be tried because the rows lack sizes.
    """
    start = f"the file states {stated:.2f} %, its rows score {found:.2f} %; the latter is used"
    if 0 < stated <= 1 and same_accuracy(100 * stated, found):
        return f"{start} (the file states a share, not percent)"
    match = next((other for other in others if same_accuracy(other.accuracy, stated)), None)
    if match is None:
        without = f" (not tried for want of sizes: {', '.join(untried)})" if untried else ""
        return f"{start}; no preset in any coordinate space gives the stated number{without}"
    return (
        f"{start}; the cause is the {match.cause}: {match.reading} in coordinate space "
        f"{match.coordinate_space} gives the stated number"
    )


def extraction_in_words(parsed: np.ndarray, logged: np.ndarray, true_boxes: np.ndarray) -> str:
    """How a log derived its extracted boxes from the completions; "" if that is unclear.

    Boxes that were converted to 0-1000 (or 0-1) are the completions' boxes times one factor per
    axis, and the image side implied by the factor contains the true box.

    Args:
        parsed, logged, true_boxes: (n, 4) xyxy: read from the completions, extracted by the log,
            and true in original pixels; NaN where there is none.
    """
    known = ~np.isnan(parsed).any(axis=1) & ~np.isnan(logged).any(axis=1)
    if not known.any() or known.mean() < MOST_ROWS:
        return ""
    parsed, logged, true_boxes = parsed[known], logged[known], true_boxes[known]
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = logged[:, 2:] / parsed[:, 2:]
    rounding = max(1.0, np.abs(logged).max()) * ROUNDING
    scaled = np.abs(parsed[:, :2] * factor - logged[:, :2]) <= rounding
    if np.allclose(factor, 1) or not _most(scaled):
        return ""
    for coordinate_space, full_side in FULL_SIDE.items():
        with np.errstate(divide="ignore", invalid="ignore"):
            side_px = full_side / factor
        if _most((side_px >= SIDE_SLACK * true_boxes[:, 2:]) & (side_px <= LARGEST_SIDE_PX)):
            return (
                f"the completions' boxes in coordinate space {coordinate_space}, scored as "
                "original pixels"
            )
    across, down = np.median(factor, axis=0)
    return f"the completions' boxes times {across:.2f} across and {down:.2f} down"


def _most(agrees: np.ndarray) -> bool:
    """Whether both axes agree in most rows; bool (n, 2)."""
    return bool(agrees.all(axis=1).mean() >= MOST_ROWS)
