"""Rewards for one answered box A and one true box T, both xyxy in original pixels.

None where a completion does not have exactly one true box with an area; multi_box.py judges
several. The examples have A = (0, 0, 10, 10).
"""

import numpy as np

from vlm_r1.rec import boxes
from vlm_r1.rec.rewards.batch import Batch


def iou(batch: Batch) -> list[float | None]:
    """|A and T| / |A or T|, 0 to 1; 0 where no box can be read.

    Example: T = (0, 0, 10, 5) -> 50 / 100 = 0.5
    """
    return batch.where_judgeable(batch.ious)


def iou_hard(batch: Batch) -> list[float | None]:
    """1 where IoU is above 0.5, else 0: VLM-R1's reward of February 2025.

    Example: T = (0, 0, 10, 5) -> IoU 0.5, not above it -> 0; T = (0, 0, 10, 6) -> 1
    """
    return batch.where_judgeable(boxes.is_hit(batch.ious).astype(float))


def giou(batch: Batch) -> list[float | None]:
    """IoU - |C without A and T| / |C|, C the smallest box around both; -1 to 1.

    Ranks near misses above far ones, where IoU is 0 for both. -1 where no box can be read.
    (Rezatofighi et al. 2019, algorithm 1.)

    Example: T = (10, 0, 20, 10) -> 0 - 0 / 200 = 0; T = (30, 0, 40, 10) -> 0 - 200 / 400 = -0.5
    """
    around = _around(batch)
    union = boxes.area(batch.answered) + boxes.area(batch.true_box) - _intersection(batch)
    with np.errstate(all="ignore"):  # 0 / 0 where neither box has an area
        value = batch.ious - (boxes.area(around) - union) / boxes.area(around)
    return batch.where_judgeable(np.nan_to_num(value, nan=-1.0))


def center(batch: Batch) -> list[float | None]:
    """1 - d^2 / c^2: d between the centers, c the diagonal of the smallest box around both; 0 to 1.

    Ignores the box's size. 0 where no box can be read. (Zheng et al. 2020, equation 6.)

    Example: T = (10, 0, 20, 10) -> d = 10, c^2 = 20^2 + 10^2 -> 1 - 100 / 500 = 0.8
    """
    around = _around(batch)
    apart = _centers(batch.answered) - _centers(batch.true_box)
    diagonal = around[:, 2:] - around[:, :2]
    with np.errstate(all="ignore"):  # 0 / 0 where both boxes are one point
        value = 1 - (apart**2).sum(axis=1) / (diagonal**2).sum(axis=1)
    return batch.where_judgeable(np.nan_to_num(value, nan=0.0))


def _around(batch: Batch) -> np.ndarray:
    """The smallest box (n, 4) around the answered and the true box."""
    low = np.minimum(batch.answered[:, :2], batch.true_box[:, :2])
    high = np.maximum(batch.answered[:, 2:], batch.true_box[:, 2:])
    return np.concatenate([low, high], axis=1)


def _centers(box: np.ndarray) -> np.ndarray:
    return np.asarray(box[:, :2] + box[:, 2:]) / 2


def _intersection(batch: Batch) -> np.ndarray:
    """Area (n,) that both boxes share."""
    low = np.maximum(batch.answered[:, :2], batch.true_box[:, :2])
    high = np.minimum(batch.answered[:, 2:], batch.true_box[:, 2:])
    return boxes.area(np.concatenate([low, high], axis=1))
