"""Table of results -> the report's block `statistics`: what is computed from whole curves."""

from collections.abc import Callable, Sequence

import numpy as np

from vlm_r1.config import METHODS
from vlm_r1.report.results_table import TESTED, ResultsTable
from vlm_r1.report.schema import (
    Comparison,
    CurveSummary,
    DatasetStatistics,
    Estimate,
    GainLine,
    GapDifference,
    MethodStatistics,
    Statistics,
    StepTest,
)
from vlm_r1.report.wording import estimate
from vlm_r1.stats.curves import (
    POWER,
    area_between,
    difference_of_gaps,
    first_lasting_step,
    forgetting,
    generalization_gap,
    minimum_detectable_effect,
)
from vlm_r1.stats.intervals import holm

Values = Callable[[str, str, int], np.ndarray]  # (method, dataset, step) -> values of the rows


def curve_statistics(
    table: ResultsTable, comparisons: Sequence[Comparison], gains: Sequence[GainLine]
) -> Statistics:
    """The report's block `statistics`; `comparisons` and `gains` are those of all common steps."""
    return Statistics(
        seeds=len(table.seeds),
        confidence=table.confidence,
        power=POWER,
        datasets=[
            _dataset(
                table,
                [c for c in comparisons if c.dataset == name],
                [gain for gain in gains if gain.dataset == name],
            )
            for name in table.datasets(*TESTED)
        ],
        methods=[_method(table, m, *pair) for pair in _pairs(table) for m in METHODS],
        gap_differences=gap_differences(table),
    )


def gap_differences(table: ResultsTable) -> list[GapDifference]:
    """grpo's generalization gap minus sft's, for each pair of datasets, then over all of them."""
    pairs = [(inside, outside) for inside, outside in _pairs(table) if inside is not None]
    lines = [_gap_difference(table, [inside], [outside]) for inside, outside in pairs]
    if len(pairs) < 2:
        return lines
    inside, outside = (list(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
    shared = _shared_steps(table, [*inside, *outside])
    return [*lines, _gap_difference(table, inside, outside)] if shared else lines


def _dataset(
    table: ResultsTable, comparisons: list[Comparison], gains: list[GainLine]
) -> DatasetStatistics:
    dataset = comparisons[-1].dataset
    trained = _trained(comparisons)
    tests = [
        StepTest(step=c.step, p_value=c.p_value, p_holm=p)
        for c, p in zip(trained, holm([c.p_value for c in trained]), strict=True)
    ]
    ends = [(c.step, c.ci_low, c.ci_high, t.p_holm) for c, t in zip(trained, tests, strict=True)]
    raw = _summary(table, dataset, ends, lambda m, d, s: table[m, d, s].hit)
    gained = [(gain.step, gain.ci_low, gain.ci_high, gain.p_holm) for gain in gains]
    return DatasetStatistics(
        dataset=dataset,
        steps=tests,
        gain=_summary(table, dataset, gained, table.gain) if gains else None,
        **raw.model_dump(),
    )


def _trained(comparisons: list[Comparison]) -> list[Comparison]:
    """Those after step 0, where nothing is trained yet and only the prompts differ.

    If step 0 is the only one, it is returned.
    """
    return [c for c in comparisons if c.step > 0] or comparisons


def _summary(
    table: ResultsTable,
    dataset: str,
    tests: list[tuple[int, float, float, float]],
    values: Values,
) -> CurveSummary:
    """Of grpo minus sft of `values`; `tests` are (step, low, high, p_holm) at each trained step."""
    alpha = 1 - table.confidence
    steps = [step for step, *_ in tests]
    grpo, sft = (values(method, dataset, steps[-1]) for method in ("grpo", "sft"))
    return CurveSummary(
        first_step_above_zero=first_lasting_step(
            steps, [p < alpha and low > 0 for _, low, _, p in tests]
        ),
        first_step_below_zero=first_lasting_step(
            steps, [p < alpha and high < 0 for _, _, high, p in tests]
        ),
        minimum_detectable_effect=minimum_detectable_effect(
            grpo, sft, table.first(dataset).scores.images, table.confidence
        ),
        area=_area(table, dataset, values),
    )


def _area(table: ResultsTable, dataset: str, values: Values) -> Estimate | None:
    steps = table.common_steps(dataset)
    if len(steps) < 2:
        return None
    curves = {m: np.stack([values(m, dataset, s) for s in steps], axis=-2) for m in METHODS}
    images = table.first(dataset).scores.images
    found = area_between(steps, curves["grpo"], curves["sft"], images, table.confidence)
    return estimate(found)


def _pairs(table: ResultsTable) -> list[tuple[str | None, str]]:
    """(in-domain, out-of-domain) datasets that share step 0 and a later step."""
    inside: list[str | None] = [*table.datasets("id")] or [None]
    pairs = [(name, ood) for ood in table.datasets("ood") for name in inside]
    return [pair for pair in pairs if _shared_steps(table, pair)]


def _shared_steps(table: ResultsTable, names: Sequence[str | None]) -> list[int]:
    """The trained steps common to all datasets named, rising."""
    return sorted(
        set.intersection(*(set(table.trained_steps(name)) for name in names if name is not None))
    )


def _method(
    table: ResultsTable, method: str, id_dataset: str | None, ood_dataset: str
) -> MethodStatistics:
    step = _shared_steps(table, (id_dataset, ood_dataset))[-1]
    first, last = (table[method, ood_dataset, s] for s in (0, step))
    gap = None
    if id_dataset is not None:
        gap = generalization_gap(
            table.gain(method, id_dataset, step),
            table.first(id_dataset).scores.images,
            table.gain(method, ood_dataset, step),
            last.images,
            table.confidence,
        )
    return MethodStatistics(
        method=method,
        id_dataset=id_dataset,
        ood_dataset=ood_dataset,
        step=step,
        forgetting=estimate(forgetting(first.hit, last.hit, last.images, table.confidence)),
        generalization_gap=None if gap is None else estimate(gap),
    )


def _gap_difference(table: ResultsTable, inside: list[str], outside: list[str]) -> GapDifference:
    step = _shared_steps(table, [*inside, *outside])[-1]

    def gains(name: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        images = table.first(name).scores.images
        return {m: table.gain(m, name, step) for m in METHODS}, images

    found = difference_of_gaps(
        [gains(name) for name in inside], [gains(name) for name in outside], table.confidence
    )
    return GapDifference(
        id_datasets=inside, ood_datasets=outside, step=step, difference=estimate(found)
    )
