"""Table of results -> the report's block `repeats`: answers that were sampled several times."""

from collections.abc import Mapping

import numpy as np

from vlm_r1.config import METHODS, Method
from vlm_r1.report.results_table import TESTED, ResultsTable, SeedGroup
from vlm_r1.report.schema import RepeatDifference, RepeatLine, Repeats
from vlm_r1.report.wording import estimate
from vlm_r1.stats.intervals import interval, paired_difference
from vlm_r1.stats.variance import split_variance


def repeats_block(table: ResultsTable) -> Repeats | None:
    """Sampled accuracy of both methods at every common step; None if nothing was sampled."""
    lines, differences = [], []
    for dataset in table.datasets(*TESTED):
        for step in table.common_steps(dataset):
            groups = {method: table[method, dataset, step] for method in METHODS}
            sampled = {m: found for m, g in groups.items() if (found := _sampled(g)) is not None}
            if len(sampled) == len(METHODS):
                lines += [_line(groups[method], sampled[method]) for method in METHODS]
                differences.append(_difference(groups["grpo"], sampled))
    if not lines:
        return None
    sampling = table.results[0].contract.get("repeats", "unknown")
    return Repeats(sampling=sampling, lines=lines, differences=differences)


def _sampled(group: SeedGroup) -> np.ndarray | None:
    """Hits (runs, n, repeats); None if a run has none."""
    all_found = [result.rows.sampled_correct for result in group.results]
    found = [one for one in all_found if one is not None]
    return np.stack(found) if len(found) == len(all_found) else None


def _means(sampled: np.ndarray) -> np.ndarray:
    """Share of each question's sampled answers that are right: (n,), or (runs, n) for several."""
    means: np.ndarray = sampled.mean(axis=-1)
    return means if len(means) > 1 else means[0]


def _line(group: SeedGroup, sampled: np.ndarray) -> RepeatLine:
    mean, low, high = interval(_means(sampled), group.images, group.confidence)
    parts = [split_variance(run) for run in sampled]
    within = [part.within for part in parts if part.within is not None]
    between = [part.between for part in parts if part.between is not None]
    return RepeatLine(
        method=group.method,
        dataset=group.dataset,
        step=group.step,
        repeats=sampled.shape[-1],
        n=group.n,
        accuracy=mean,
        ci_low=low,
        ci_high=high,
        greedy=group.accuracy,
        within=float(np.mean(within)) if within else None,
        between=float(np.mean(between)) if between else None,
    )


def _difference(group: SeedGroup, sampled: Mapping[Method, np.ndarray]) -> RepeatDifference:
    grpo, sft = _means(sampled["grpo"]), _means(sampled["sft"])
    found = paired_difference(grpo, sft, group.images, group.confidence)
    return RepeatDifference(dataset=group.dataset, step=group.step, difference=estimate(found))
