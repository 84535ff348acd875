"""Table of results -> the report's block `detection`: datasets whose rows have several boxes."""

import numpy as np

from vlm_r1.config import METHODS
from vlm_r1.evaluation.detection import f1, precision_and_recall
from vlm_r1.report.results_table import TESTED, ResultsTable, SeedGroup
from vlm_r1.report.schema import Detection, DetectionDifference, DetectionLine
from vlm_r1.report.wording import estimate
from vlm_r1.stats.intervals import Difference, holm, interval, paired_difference


def detection_block(table: ResultsTable) -> Detection | None:
    """F1 of both methods at every step, and their differences; None if no row detects objects."""
    detecting = [d for d in table.datasets(*TESTED) if table.first(d).scores.objects is not None]
    if not detecting:
        return None
    lines = [
        _line(table[method, dataset, step])
        for dataset in detecting
        for method in METHODS
        for step in table.steps(method, dataset)
    ]
    differences = [line for dataset in detecting for line in _differences(table, dataset)]
    return Detection(lines=lines, differences=differences)


def _line(group: SeedGroup) -> DetectionLine:
    matches = _matches(group)
    precision, recall = precision_and_recall(np.concatenate(matches))
    mean, low, high = interval(_f1(group), group.images, group.confidence)
    return DetectionLine(
        method=group.method,
        dataset=group.dataset,
        step=group.step,
        n=group.n,
        f1=mean,
        ci_low=low,
        ci_high=high,
        precision=100 * precision,
        recall=100 * recall,
        all_right=group.accuracy,
    )


def _differences(table: ResultsTable, dataset: str) -> list[DetectionDifference]:
    """F1, grpo minus sft, at every common step; p by Holm over the steps."""
    steps = table.common_steps(dataset)
    found = [_difference(table, dataset, step) for step in steps]
    adjusted = holm([difference.p_value for difference in found])
    return [
        DetectionDifference(dataset=dataset, step=step, f1=estimate(difference), p_holm=p_holm)
        for step, difference, p_holm in zip(steps, found, adjusted, strict=True)
    ]


def _difference(table: ResultsTable, dataset: str, step: int) -> Difference:
    grpo, sft = (table[method, dataset, step] for method in ("grpo", "sft"))
    return paired_difference(_f1(grpo), _f1(sft), grpo.images, grpo.confidence)


def _f1(group: SeedGroup) -> np.ndarray:
    """F1 of each row in 0-1, (n,), or (runs, n) for several."""
    found = np.stack([f1(matches) for matches in _matches(group)])
    return found if len(found) > 1 else found[0]


def _matches(group: SeedGroup) -> list[np.ndarray]:
    found = [result.scores.objects for result in group.results]
    return [objects.matches for objects in found if objects is not None]
