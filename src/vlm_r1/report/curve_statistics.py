"""Table of results -> the report's blocks `statistics` (whole curves) and `selection`."""

import numpy as np

from vlm_r1.config import METHODS
from vlm_r1.evaluation.selection import ValidationScore, leaking_choice, pooled_score
from vlm_r1.report.results_table import TESTED, ResultsTable
from vlm_r1.report.schema import (
    Comparison,
    DatasetStatistics,
    Estimate,
    MethodStatistics,
    SelectionLine,
    Statistics,
    StepTest,
)
from vlm_r1.stats.curves import (
    POWER,
    area_between,
    first_lasting_step,
    forgetting,
    generalization_gap,
    minimum_detectable_effect,
)
from vlm_r1.stats.intervals import Difference, holm


def curve_statistics(table: ResultsTable, comparisons: list[Comparison]) -> Statistics:
    """The report's block `statistics`; `comparisons` are those of all common steps."""
    return Statistics(
        seeds=len(table.seeds),
        confidence=table.confidence,
        power=POWER,
        datasets=[
            _dataset(table, [c for c in comparisons if c.dataset == name])
            for name in table.datasets(*TESTED)
        ],
        methods=_methods(table),
    )


def selection_lines(table: ResultsTable) -> list[SelectionLine]:
    """The bias of choosing checkpoints on each test set; empty without validation results.

    Uses the first seed's checkpoints, because the stage `register` chooses among those.

    Raises:
        ResultError: a checkpoint was evaluated on a test set but not on validation, or vice versa.
    """
    if not table.datasets("validation"):
        return []
    return [
        _selection_line(table, method, dataset)
        for dataset in table.datasets(*TESTED)
        for method in METHODS
    ]


def _dataset(table: ResultsTable, comparisons: list[Comparison]) -> DatasetStatistics:
    dataset, last = comparisons[-1].dataset, comparisons[-1].step
    trained = _trained(comparisons)
    tests = [
        StepTest(step=c.step, p_value=c.p_value, p_holm=p)
        for c, p in zip(trained, holm([c.p_value for c in trained]), strict=True)
    ]
    alpha = 1 - table.confidence
    steps = [test.step for test in tests]
    above = [t.p_holm < alpha and c.ci_low > 0 for t, c in zip(tests, trained, strict=True)]
    below = [t.p_holm < alpha and c.ci_high < 0 for t, c in zip(tests, trained, strict=True)]
    grpo, sft = table["grpo", dataset, last], table["sft", dataset, last]
    return DatasetStatistics(
        dataset=dataset,
        steps=tests,
        first_step_above_zero=first_lasting_step(steps, above),
        first_step_below_zero=first_lasting_step(steps, below),
        minimum_detectable_effect=minimum_detectable_effect(
            grpo.hit, sft.hit, grpo.images, table.confidence
        ),
        area=_area(table, dataset),
    )


def _trained(comparisons: list[Comparison]) -> list[Comparison]:
    """Those after step 0, where nothing is trained yet and only the prompts differ.

    If step 0 is the only one, it is returned.
    """
    return [c for c in comparisons if c.step > 0] or comparisons


def _area(table: ResultsTable, dataset: str) -> Estimate | None:
    steps = table.common_steps(dataset)
    if len(steps) < 2:
        return None
    curves = {m: np.stack([table[m, dataset, s].hit for s in steps], axis=-2) for m in METHODS}
    images = table.first(dataset).scores.images
    found = area_between(steps, curves["grpo"], curves["sft"], images, table.confidence)
    return estimate(found)


def _methods(table: ResultsTable) -> list[MethodStatistics]:
    """Both methods on the first id and ood datasets; empty without step 0 and a later one."""
    ood_dataset = table.datasets("ood")[0]
    id_dataset = next(iter(table.datasets("id")), None)
    steps = [
        set(table.common_steps(name)) for name in (id_dataset, ood_dataset) if name is not None
    ]
    common = sorted(set.intersection(*steps))
    if len(common) < 2 or common[0] != 0:
        return []
    return [_method(table, method, id_dataset, ood_dataset, common[-1]) for method in METHODS]


def _method(
    table: ResultsTable, method: str, id_dataset: str | None, ood_dataset: str, step: int
) -> MethodStatistics:
    first, last = (table[method, ood_dataset, s] for s in (0, step))
    gap = None
    if id_dataset is not None:
        id_first, id_last = (table[method, id_dataset, s] for s in (0, step))
        gap = generalization_gap(
            1.0 * id_last.hit - id_first.hit,
            id_last.images,
            1.0 * last.hit - first.hit,
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


def _selection_line(table: ResultsTable, method: str, dataset: str) -> SelectionLine:
    steps = [step for step in table.steps(method, dataset) if step > 0]
    found = leaking_choice(
        _validation_scores(table, method),
        {step: table[method, dataset, step].first.scores.hit for step in steps},
    )
    return SelectionLine(
        method=method, dataset=dataset, overclaim=found.overclaim, **found._asdict()
    )


def _validation_scores(table: ResultsTable, method: str) -> dict[int, ValidationScore]:
    """Score of every checkpoint over all validation records, as `register` computes it."""
    names = table.datasets("validation")
    steps = set.intersection(*(set(table.steps(method, name)) for name in names)) - {0}
    return {
        step: pooled_score([table[method, name, step].first.scores for name in names])
        for step in sorted(steps)
    }


def estimate(found: Difference) -> Estimate:
    """A difference as report.json has it."""
    return Estimate(points=found.mean, ci_low=found.low, ci_high=found.high, p_value=found.p_value)
