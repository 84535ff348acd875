"""Rewards for answers of several boxes: average precision, and the same against too long lists.

All boxes of a batch's row are of one class (a phrase names one kind of thing), and a completion
gives no scores, so boxes rank in the order they are written, as VLM-R1 has it (every score 1).
"""

import numpy as np

from vlm_r1.rec import boxes
from vlm_r1.rec.rewards.batch import Batch

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # COCO's
RECALLS = np.linspace(0, 1, 101)  # COCO's


def map_(batch: Batch) -> list[float | None]:
    """COCO's average precision of the answered boxes, 0 to 1; None where there are no true boxes.

    Example: one true box, answered exactly -> 1; answered second of two -> precision 1/2 at every
    recall -> 0.5
    """
    return [
        average_precision(batch.all_answered(row), truth) if len(truth) else None
        for row, truth in enumerate(batch.truths)
    ]


def odlength(batch: Batch) -> list[float | None]:
    """`map` x min(1, true boxes / answered boxes): a long list does not pay (VLM-R1, odLength).

    Where there are no true boxes: 1 for an answer without boxes, else 0.

    Example: one true box, answered first of two -> 1 x 1/2 = 0.5
    """
    values: list[float | None] = []
    for row, truth in enumerate(batch.truths):
        answered = batch.all_answered(row)
        if len(truth) == 0:
            values.append(float(len(answered) == 0))
        else:
            share = min(1.0, len(truth) / max(1, len(answered)))
            values.append(average_precision(answered, truth) * share)
    return values


def average_precision(answered: np.ndarray, true: np.ndarray) -> float:
    """AP over IoU 0.5 to 0.95 of boxes of one class in one image, as pycocotools computes it.

    Each answered box, in order, takes the free true box that it overlaps most, if by the threshold.
    Precision is made to fall with recall and read at 101 recalls. Not here, as nothing in a phrase
    tells them: crowds, sizes, several classes, the cut at 100 boxes.

    Args:
        answered: (k, 4) boxes, best first.
        true: (m, 4) boxes of the same coordinate space, m > 0.

    Example: true A, B; answered B, C (a miss), A -> precision 1 up to recall 0.5 (51 of 101
        recalls), then 2/3 -> (51 + 50 x 2/3) / 101 = 0.835
    """
    answered, true = np.reshape(answered, (-1, 4)), np.reshape(true, (-1, 4))
    if len(answered) == 0:
        return 0.0
    overlaps = boxes.iou(answered[:, None], true[None])
    return float(np.mean([_precision(_hits(overlaps, at), len(true)) for at in IOU_THRESHOLDS]))


def _hits(overlaps: np.ndarray, threshold: float) -> np.ndarray:
    """(k,) True for each answered box that takes a true one; overlaps (k, m)."""
    free = np.ones(overlaps.shape[1], dtype=bool)
    hits = np.zeros(len(overlaps), dtype=bool)
    for row, overlap in enumerate(overlaps):
        best = int(np.argmax(np.where(free, overlap, -1.0)))
        if free[best] and overlap[best] >= min(threshold, 1 - 1e-10):
            hits[row], free[best] = True, False
    return hits


def _precision(hits: np.ndarray, truths: int) -> float:
    """Mean precision over RECALLS; 0 at recalls that are never reached."""
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(found / truths, RECALLS, side="left")
    return float(np.append(falling, 0.0)[at].mean())
