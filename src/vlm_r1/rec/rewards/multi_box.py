"""Rewards for answers with several boxes: average precision, alone and with a penalty for length.

All boxes of an answer to an expression are of one class, as it names one kind of thing; in
detection, a class is a label. A completion gives no scores, so boxes rank in the order they are
written, as in VLM-R1 (every score 1).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from vlm_r1.rec import boxes
from vlm_r1.rec.rewards.batch import Batch

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # COCO's
RECALLS = np.linspace(0, 1, 101)  # COCO's


def map_(batch: Batch) -> list[float | None]:
    """COCO's average precision of the answered boxes, 0 to 1; None where there are no true boxes.

    With labels, the mean over the labels of the true boxes (mAP): answered boxes of other labels
    count nowhere, as in COCO's evaluation of a class that an image lacks.

    Example: one true box, answered exactly -> 1; answered second of two -> precision 1/2 at every
    recall -> 0.5
    """
    return [
        _mean_average_precision(batch, row) if len(true_boxes) else None
        for row, true_boxes in enumerate(batch.true_boxes)
    ]


def odlength(batch: Batch) -> list[float | None]:
    """`map` x min(1, true boxes / answered boxes): penalizes long lists (VLM-R1, odLength).

    Answered boxes of any label count. Where there are no true boxes: 1 for an answer without
    boxes, else 0.

    Example: one true box, answered first of two -> 1 x 1/2 = 0.5
    """
    values: list[float | None] = []
    for row, true_boxes in enumerate(batch.true_boxes):
        answered, _ = batch.all_answered(row)
        if len(true_boxes) == 0:
            values.append(float(len(answered) == 0))
        else:
            share = min(1.0, len(true_boxes) / max(1, len(answered)))
            values.append(_mean_average_precision(batch, row) * share)
    return values


def _mean_average_precision(batch: Batch, row: int) -> float:
    """Of one completion, over the labels of its true boxes, of which there is at least one."""
    answered, labels = batch.all_answered(row)
    true_boxes, true_labels = np.asarray(batch.true_boxes[row]), batch.labels(row)
    if true_labels is None:
        return average_precision(answered, true_boxes)
    return float(
        np.mean(
            [
                average_precision(
                    answered[_are(labels, label)], true_boxes[_are(true_labels, label)]
                )
                for label in dict.fromkeys(true_labels)
            ]
        )
    )


def _are(labels: Sequence[str], label: str) -> np.ndarray:
    """Bool (n,): which labels are that one."""
    return np.array([own == label for own in labels], dtype=bool)


def average_precision(answered: ArrayLike, true_boxes: ArrayLike) -> float:
    """AP over IoU 0.5 to 0.95 of boxes of one class in one image, as pycocotools computes it.

    Each answered box, in order, is matched with the unmatched true box that it overlaps most, if
    their IoU reaches the threshold. Precision is made non-increasing in recall and averaged over
    101 recalls. Left out, because an expression does not state them: crowds, size classes, several
    classes, the limit of 100 boxes.

    Args:
        answered: (k, 4) xyxy boxes, best first.
        true_boxes: (m, 4) xyxy boxes of the same coordinate space, m > 0.

    Example: true A, B; answered B, C (a miss), A -> precision 1 up to recall 0.5 (51 of 101
        recalls), then 2/3 -> (51 + 50 x 2/3) / 101 = 0.835
    """
    answered, true_boxes = np.reshape(answered, (-1, 4)), np.reshape(true_boxes, (-1, 4))
    if len(answered) == 0:
        return 0.0
    ious = boxes.iou(answered[:, None], true_boxes[None])
    precisions = [_precision(_hits(ious, at), len(true_boxes)) for at in IOU_THRESHOLDS]
    return float(np.mean(precisions))


def _hits(ious: np.ndarray, threshold: float) -> np.ndarray:
    """(k,) True for each answered box that is matched with a true box; ious (k, m)."""
    free = np.ones(ious.shape[1], dtype=bool)
    hits = np.zeros(len(ious), dtype=bool)
    for row, row_ious in enumerate(ious):
        best = int(np.argmax(np.where(free, row_ious, -1.0)))
        if free[best] and row_ious[best] >= min(threshold, 1 - 1e-10):  # as in pycocotools
            hits[row], free[best] = True, False
    return hits


def _precision(hits: np.ndarray, true_boxes: int) -> float:
    """Mean precision over RECALLS; 0 at recalls that are never reached.

    Args:
        true_boxes: how many there are.
    """
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    non_increasing = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(found / true_boxes, RECALLS, side="left")
    return float(np.append(non_increasing, 0.0)[at].mean())
