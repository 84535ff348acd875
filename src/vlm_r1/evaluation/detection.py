"""Answers with several labeled boxes: how many are right, and when a whole answer is.

An answered box may be matched with a true one of the same label if their IoU is above 0.5; the
matching is one-to-one and as large as possible, so it does not depend on the order of the answer
(COCO's greedy matching needs confidences, which an answer does not state). Numpy and scipy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from vlm_r1.rec.boxes import IOU_THRESHOLD, iou, is_hit, to_original
from vlm_r1.rec.objects import LabeledBox, boxes_of, hull
from vlm_r1.rec.parsing import (
    Parsed,
    Unparsed,
    parse_answer,
    parse_labeled_boxes,
    says_none,
)
from vlm_r1.rec.results import ResultRow

NOTHING = Unparsed("nothing_there")  # an answer without boxes that can be read


class Matches(NamedTuple):
    """Numbers of boxes of one answer.

    Attributes:
        weakest: the largest IoU that a matching of all boxes on both sides reaches in every pair; 0
            where the numbers or labels differ, 1 where nothing is asked for and nothing answered.
            For one true and one answered box of its label, it is their IoU.
    """

    matched: int
    answered: int
    true: int
    weakest: float


@dataclass(frozen=True, eq=False)
class RowObjects:
    """All boxes of every row of a file.

    Attributes:
        matches: (n, 3), the numbers of boxes that match, are answered and are true.
        true, answered: (n,) of arrays (k, 4), xyxy in original pixels.
    """

    matches: np.ndarray
    true: np.ndarray
    answered: np.ndarray

    def take(self, order: list[int]) -> "RowObjects":
        """The rows at positions `order`, in that order."""
        return RowObjects(self.matches[order], self.true[order], self.answered[order])


def f1(matches: np.ndarray) -> np.ndarray:
    """F1 (n,), 0-1: 2 matched / (answered + true); 1 where there are no boxes on either side.

    Args:
        matches: (n, 3), the numbers of boxes that match, are answered and are true.
    """
    matched, answered, true = matches.T
    boxes = answered + true
    return np.where(boxes == 0, 1.0, 2 * matched / np.maximum(boxes, 1))


def precision_and_recall(matches: np.ndarray) -> tuple[float, float]:
    """Shares (0-1) of all answered and of all true boxes that match: VLM-R1's GP and GR.

    Args:
        matches: as of `f1`. A share of no boxes is 0.
    """
    matched, answered, true = matches.sum(axis=0).tolist()
    return matched / max(answered, 1), matched / max(true, 1)


def answered_objects(row: ResultRow, coordinate_space: str) -> list[LabeledBox]:
    """All objects in a row's completion, in original pixels; the row has the sizes this needs.

    Args:
        coordinate_space: the one that the model writes.
    """
    written = parse_labeled_boxes(row.model_output)
    as_written = boxes_of([LabeledBox(*one) for one in written])
    if coordinate_space != "original":
        size = np.array(row.image_size)
        input_size = size if row.input_size is None else np.array(row.input_size)
        as_written = to_original(as_written, coordinate_space, size, input_size)
    boxes = as_written.tolist()
    return [LabeledBox(tuple(box), label) for box, (_, label) in zip(boxes, written, strict=True)]


def read_hull(row: ResultRow, coordinate_space: str) -> Parsed | Unparsed:
    """The smallest box, in original pixels, around all boxes of a detection row's answer.

    `NOTHING` if it says that there is nothing, else the reason why no box can be read.
    """
    answered = answered_objects(row, coordinate_space)
    if answered:
        box = tuple(hull(boxes_of(answered)).tolist())
        return Parsed(box, "original", where="answer", boxes=1)
    if says_none(row.model_output):
        return NOTHING
    reason = parse_answer(row.model_output)
    return reason if isinstance(reason, Unparsed) else Unparsed("no_box")


def with_detections(
    rows: Sequence[ResultRow], overlap: np.ndarray, boxes: np.ndarray, coordinate_space: str
) -> tuple[np.ndarray, RowObjects]:
    """The overlap (n,) with that of detection rows put in, and the objects of all rows.

    Args:
        overlap: (n,) IoU of the rows with one true box.
        boxes: (n, 4) what these rows answered; NaN where unparsed.
    """
    overlap = overlap.copy()
    true_of, answered_of = (np.empty(len(rows), dtype=object) for _ in range(2))
    answered = ~np.isnan(boxes).any(axis=1)
    matches = np.stack([is_hit(overlap), answered, np.ones(len(rows))], axis=1).astype(np.int32)
    for i, row in enumerate(rows):
        if row.true_objects is None:
            true_of[i] = np.array([row.ground_truth])
            answered_of[i] = boxes[i : i + 1][answered[i : i + 1]]
            continue
        true = [LabeledBox(one.bbox_2d, one.label) for one in row.true_objects]
        read = answered_objects(row, coordinate_space)
        found = match_objects(read, true)
        overlap[i], matches[i] = found.weakest, found[:3]
        true_of[i], answered_of[i] = boxes_of(true), boxes_of(read)
    return overlap, RowObjects(matches, true_of, answered_of)


def match_objects(answered: Sequence[LabeledBox], true: Sequence[LabeledBox]) -> Matches:
    """Match the boxes of an answer with the true ones; both in one coordinate space.

    Example: true dog A, dog B; answered dog A, cat B -> 1 of 2 answered and of 2 true match
    """
    overlaps = _overlaps(answered, true)
    matched = _largest_matching(overlaps > IOU_THRESHOLD)
    return Matches(matched, len(answered), len(true), _weakest(overlaps))


def _overlaps(answered: Sequence[LabeledBox], true: Sequence[LabeledBox]) -> np.ndarray:
    """IoU (answered, true); 0 where the labels differ."""
    overlaps = iou(boxes_of(answered)[:, None], boxes_of(true)[None])
    labels = np.array([[a.label == t.label for t in true] for a in answered], dtype=bool)
    return np.where(labels.reshape(overlaps.shape), overlaps, 0.0)


def _largest_matching(allowed: np.ndarray) -> int:
    """Number of pairs of the largest one-to-one matching; `allowed` is bool (rows, columns)."""
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    return int(allowed[rows, columns].sum())


def _weakest(overlaps: np.ndarray) -> float:
    """See `Matches.weakest`: by bisection over the overlaps that occur."""
    answered, true = overlaps.shape
    if answered != true:
        return 0.0
    if answered == 0:
        return 1.0
    levels = np.unique(overlaps)  # at the lowest one, every pair is allowed
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if _largest_matching(overlaps >= levels[middle]) == true:
            low = middle
        else:
            high = middle - 1
    return float(levels[low])
