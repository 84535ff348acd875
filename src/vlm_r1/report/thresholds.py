"""Table of results -> the report's block `thresholds`: both methods at every IoU threshold."""

import numpy as np

from vlm_r1.config import METHODS
from vlm_r1.report.results_table import TESTED, ResultsTable
from vlm_r1.report.schema import ThresholdLine
from vlm_r1.report.wording import estimate
from vlm_r1.stats.intervals import paired_difference

THRESHOLDS = tuple(k / 20 for k in range(2, 20))  # 0.1 to 0.95


def threshold_lines(table: ResultsTable) -> list[ThresholdLine]:
    """Every tested dataset at its last common step: one line per threshold, then the mean IoU."""
    return [
        _line(table, dataset, threshold)
        for dataset in table.datasets(*TESTED)
        for threshold in (*THRESHOLDS, None)
    ]


def _line(table: ResultsTable, dataset: str, threshold: float | None) -> ThresholdLine:
    steps = table.common_steps(dataset)
    step, images = steps[-1], table.first(dataset).scores.images
    ends = {m: passes(table[m, dataset, step].overlap, threshold) for m in METHODS}
    raw = paired_difference(ends["grpo"], ends["sft"], images, table.confidence)
    gain = None
    if steps[0] == 0 < step:
        gains = {m: ends[m] - passes(table[m, dataset, 0].overlap, threshold) for m in METHODS}
        gain = paired_difference(gains["grpo"], gains["sft"], images, table.confidence)
    return ThresholdLine(
        dataset=dataset,
        step=step,
        threshold=threshold,
        sft=100 * float(ends["sft"].mean()),
        grpo=100 * float(ends["grpo"].mean()),
        difference=estimate(raw),
        gain=None if gain is None else estimate(gain),
    )


def passes(overlap: np.ndarray, threshold: float | None) -> np.ndarray:
    """1.0 where an IoU is strictly above `threshold`, else 0.0; without one the IoU itself.

    Example: IoU 0.5 at threshold 0.5 -> 0.0, as the accuracy counts it
    """
    return overlap if threshold is None else (overlap > threshold).astype(np.float64)
