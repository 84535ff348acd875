"""Table of results -> the report's numbers: curves, comparisons, gains and where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass

from vlm_r1.config import METHODS
from vlm_r1.errors import ResultError
from vlm_r1.evaluation.coordinate_correction import (
    Decomposition,
    accuracy_recovered,
    decompose_difference,
)
from vlm_r1.report.results_table import TESTED, ResultsTable, SeedGroup
from vlm_r1.report.schema import Comparison, CurvePoint, DatasetLine, DecompositionLine
from vlm_r1.stats.intervals import Difference, McNemarResult, mcnemar_test, paired_difference


@dataclass(frozen=True)
class MethodGain:
    """How one method's accuracy on a dataset changed from step 0 to the last common step."""

    method: str
    dataset: str
    role: str
    step: int
    start: float  # percent
    end: float
    gain: Difference


@dataclass(frozen=True)
class MethodDecomposition:
    """One method's change since the first common step, as box coordinates and grounding."""

    method: str
    dataset: str
    role: str
    from_step: int
    step: int
    change: Decomposition
    recovered: Difference  # by correcting the box coordinates at `step`
    end: float  # percent, raw, at `step`
    scale: tuple[float, float]  # (x, y)
    offset_px: tuple[float, float]
    reason: str | None  # why nothing was corrected


@dataclass(frozen=True)
class LastStep:
    """Both methods on one dataset at the last common step.

    Attributes:
        difference: grpo minus sft, and `decomposition` the same as coordinates and grounding.
        mcnemar: rows that only grpo (a) or only sft (b) got right, for each pair of runs.
        gain_gap: grpo's gain since step 0 minus sft's; None if the logs have no step 0.
        start_gap: grpo minus sft at step 0: the effect of the prompts alone.
    """

    dataset: str
    role: str
    step: int
    accuracy: dict[str, float]  # method -> percent
    difference: Difference
    mcnemar: list[McNemarResult]
    n: int
    n_images: int
    gains: list[MethodGain]
    gain_gap: Difference | None
    start_gap: Difference | None
    method_decompositions: tuple[MethodDecomposition, ...] = ()
    decomposition: Decomposition | None = None


def dataset_lines(
    table: ResultsTable, validated: Mapping[str, DatasetLine] | None = None
) -> list[DatasetLine]:
    """Every dataset once: the tested ones first, last those that are only in `validated`."""
    remaining, lines = dict(validated or {}), []
    for dataset in [*table.datasets(*TESTED), *table.datasets("validation")]:
        result, found = table.first(dataset), remaining.pop(dataset, None)
        lines.append(
            DatasetLine(
                name=dataset,
                role=result.role,
                records=result.scores.n,
                images=len(set(result.scores.images)),
                digest=result.records_digest,
                quarantined=None if found is None else found.quarantined,
                leakage=None if found is None else found.leakage,
                choice_leakage=None if found is None else found.choice_leakage,
            )
        )
    return [*lines, *remaining.values()]


def curve_points(table: ResultsTable) -> list[CurvePoint]:
    """Accuracy with its interval at every step, by tested dataset and method."""
    return [
        _curve_point(table[method, dataset, step])
        for dataset in table.datasets(*TESTED)
        for method in METHODS
        for step in table.steps(method, dataset)
    ]


def compare(table: ResultsTable) -> list[Comparison]:
    """grpo minus sft at every common step of every tested dataset."""
    return [
        _comparison(table, dataset, step)
        for dataset in table.datasets(*TESTED)
        for step in table.common_steps(dataset)
    ]


def decomposition_lines(last_steps: list[LastStep]) -> list[DecompositionLine]:
    """The decomposition of every method's change on every tested dataset, for report.json."""
    return [_decomposition_line(part) for last in last_steps for part in last.method_decompositions]


def at_last_step(table: ResultsTable, dataset: str) -> LastStep:
    """Both methods on `dataset` at their last common step.

    Raises:
        ResultError: they have no common step.
    """
    steps = table.common_steps(dataset)
    if not steps:
        raise ResultError(
            got=f"{dataset}: no step at which both methods were evaluated",
            need="at least one common step",
            because="only equal amounts of training can be compared",
            do="evaluate both methods on one step grid",
        )
    first, step = steps[0], steps[-1]
    sft, grpo = (table[method, dataset, step] for method in ("sft", "grpo"))
    starts = {m: table[m, dataset, 0] for m in METHODS} if first == 0 < step else {}
    ends = {method: table[method, dataset, step] for method in METHODS}
    return LastStep(
        dataset=dataset,
        role=grpo.role,
        step=step,
        accuracy={method: end.accuracy for method, end in ends.items()},
        difference=grpo.minus(sft),
        mcnemar=[
            mcnemar_test(a.scores.hit, b.scores.hit)
            for a, b in zip(grpo.results, sft.results, strict=True)
        ],
        n=grpo.n,
        n_images=grpo.n_images,
        gains=[_gain(start, ends[method]) for method, start in starts.items()],
        gain_gap=_gain_gap(table, dataset, step) if starts else None,
        start_gap=starts["grpo"].minus(starts["sft"]) if starts else None,
        method_decompositions=tuple(
            _method_decomposition(table[method, dataset, first], ends[method]) for method in METHODS
        ),
        decomposition=_decompose(sft, grpo),
    )


def _curve_point(group: SeedGroup) -> CurvePoint:
    accuracy, low, high = group.interval()
    corrected = group.corrected_interval()
    return CurvePoint(
        method=group.method,
        dataset=group.dataset,
        step=group.step,
        n=group.n,
        accuracy=accuracy,
        ci_low=low,
        ci_high=high,
        mean_iou=group.mean_iou,
        parse_rate=group.parse_rate,
        corrected_accuracy=corrected.mean,
        corrected_ci_low=corrected.low,
        corrected_ci_high=corrected.high,
        files=[result.source for result in group.results],
    )


def _comparison(table: ResultsTable, dataset: str, step: int) -> Comparison:
    grpo, sft = table["grpo", dataset, step], table["sft", dataset, step]
    found, corrected = grpo.minus(sft), grpo.corrected_minus(sft)
    return Comparison(
        dataset=dataset,
        step=step,
        difference=found.mean,
        ci_low=found.low,
        ci_high=found.high,
        p_value=found.p_value,
        n=grpo.n,
        n_images=grpo.n_images,
        corrected_difference=corrected.mean,
        corrected_ci_low=corrected.low,
        corrected_ci_high=corrected.high,
    )


def _gain(start: SeedGroup, end: SeedGroup) -> MethodGain:
    return MethodGain(
        method=end.method,
        dataset=end.dataset,
        role=end.role,
        step=end.step,
        start=start.accuracy,
        end=end.accuracy,
        gain=end.minus(start),
    )


def _gain_gap(table: ResultsTable, dataset: str, step: int) -> Difference:
    """grpo's gain from step 0 to `step` minus sft's."""
    grpo, sft = (table.gain(method, dataset, step) for method in ("grpo", "sft"))
    return paired_difference(grpo, sft, table.first(dataset).scores.images, table.confidence)


def _decompose(start: SeedGroup, end: SeedGroup) -> Decomposition:
    return decompose_difference(start.correction, end.correction, end.images, end.confidence)


def _method_decomposition(start: SeedGroup, end: SeedGroup) -> MethodDecomposition:
    correction = end.correction
    return MethodDecomposition(
        method=end.method,
        dataset=end.dataset,
        role=end.role,
        from_step=start.step,
        step=end.step,
        change=_decompose(start, end),
        recovered=accuracy_recovered(correction, end.images, end.confidence),
        end=end.accuracy,
        scale=correction.scale,
        offset_px=correction.offset,
        reason=correction.reason,
    )


def _decomposition_line(found: MethodDecomposition) -> DecompositionLine:
    change, recovered = found.change, found.recovered
    return DecompositionLine(
        method=found.method,
        dataset=found.dataset,
        from_step=found.from_step,
        step=found.step,
        change=change.total.mean,
        change_ci_low=change.total.low,
        change_ci_high=change.total.high,
        coordinates=change.coordinates.mean,
        coordinates_ci_low=change.coordinates.low,
        coordinates_ci_high=change.coordinates.high,
        grounding=change.grounding.mean,
        grounding_ci_low=change.grounding.low,
        grounding_ci_high=change.grounding.high,
        recovered=recovered.mean,
        recovered_ci_low=recovered.low,
        recovered_ci_high=recovered.high,
        scale=found.scale,
        offset_px=found.offset_px,
        reason=found.reason,
    )
