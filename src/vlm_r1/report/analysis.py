"""Units -> the report's numbers: curves, comparisons, what each method gained and where from."""

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
    """Where one method's change since the first common step comes from."""

    method: str
    dataset: str
    role: str
    from_step: int
    step: int
    split: Decomposition
    recovered: Difference  # by correcting the box coordinates at `step`
    end: float  # percent, raw, at `step`
    scale: tuple[float, float]  # (x, y)
    offset_px: tuple[float, float]
    reason: str | None  # why nothing was corrected


@dataclass(frozen=True)
class LastStep:
    """Both methods on one dataset at the last common step.

    `gain_gap` is grpo's gain since step 0 minus sft's; None where the logs have no step 0.
    `split` is grpo minus sft at this step as coordinates and grounding.
    """

    dataset: str
    role: str
    step: int
    accuracy: dict[str, float]  # method -> percent
    difference: Difference
    mcnemar: McNemarResult  # rows that only grpo, only sft got right, of the first seed
    n: int
    n_images: int
    gains: list[MethodGain]
    gain_gap: Difference | None
    start_gap: Difference | None  # grpo minus sft at step 0: what the prompts alone do
    method_decompositions: tuple[MethodDecomposition, ...] = ()
    split: Decomposition | None = None


def dataset_lines(
    table: ResultsTable, validated: Mapping[str, DatasetLine] | None = None
) -> list[DatasetLine]:
    """Every dataset once, the tested ones first, then those that only `validated` holds."""
    told, lines = dict(validated or {}), []
    for dataset in [*table.datasets(*TESTED), *table.datasets("validation")]:
        result, found = table.first(dataset), told.pop(dataset, None)
        lines.append(
            DatasetLine(
                name=dataset,
                role=result.role,
                records=result.scores.n,
                images=len(set(result.scores.images)),
                digest=result.records_digest,
                quarantined=None if found is None else found.quarantined,
                leakage=None if found is None else found.leakage,
            )
        )
    return [*lines, *told.values()]


def curve_points(table: ResultsTable) -> list[CurvePoint]:
    """Every tested point's accuracy with its interval, by dataset, method and step."""
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
    """The method_decompositions of every method's change on every tested dataset, for report.json."""
    return [
        _decomposition_line(origin) for last in last_steps for origin in last.method_decompositions
    ]


def at_last_step(table: ResultsTable, dataset: str) -> LastStep:
    """Both methods on `dataset` at the last step they share.

    Raises:
        ResultError: they share none.
    """
    steps = table.common_steps(dataset)
    if not steps:
        raise ResultError(
            got=f"{dataset}: no step at which both methods were evaluated",
            need="at least one common step",
            because="only equal amounts of training can be compared",
            do="evaluate both methods on one step grid",
        )
    step = steps[-1]
    ends = {method: table[method, dataset, step] for method in METHODS}
    starts = {m: table[m, dataset, 0] for m in METHODS if steps[0] == 0 < step}
    sft, grpo = ends["sft"], ends["grpo"]
    return LastStep(
        dataset=dataset,
        role=ends["grpo"].role,
        step=step,
        accuracy={method: end.accuracy for method, end in ends.items()},
        difference=grpo.minus(sft),
        mcnemar=mcnemar_test(grpo.first.scores.hit, sft.first.scores.hit),
        n=grpo.n,
        n_images=_image_count(ends["grpo"]),
        gains=[_move(starts[method], ends[method]) for method in starts],
        gain_gap=_gain_gap(starts, ends) if starts else None,
        start_gap=starts["grpo"].minus(starts["sft"]) if starts else None,
        method_decompositions=tuple(_origin(table[m, dataset, steps[0]], ends[m]) for m in METHODS),
        split=_split(ends["sft"], ends["grpo"]),
    )


def _curve_point(point: SeedGroup) -> CurvePoint:
    accuracy, low, high = point.interval()
    corrected = point.corrected_interval()
    return CurvePoint(
        method=point.method,
        dataset=point.dataset,
        step=point.step,
        n=point.n,
        accuracy=accuracy,
        ci_low=low,
        ci_high=high,
        mean_iou=point.mean_iou,
        parse_rate=point.parse_rate,
        corrected_accuracy=corrected.mean,
        corrected_ci_low=corrected.low,
        corrected_ci_high=corrected.high,
        files=[result.source for result in point.results],
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
        n_images=_image_count(grpo),
        corrected_difference=corrected.mean,
        corrected_ci_low=corrected.low,
        corrected_ci_high=corrected.high,
    )


def _move(start: SeedGroup, end: SeedGroup) -> MethodGain:
    return MethodGain(
        method=end.method,
        dataset=end.dataset,
        role=end.role,
        step=end.step,
        start=start.accuracy,
        end=end.accuracy,
        gain=end.minus(start),
    )


def _origin(start: SeedGroup, end: SeedGroup) -> MethodDecomposition:
    correction = end.correction
    return MethodDecomposition(
        method=end.method,
        dataset=end.dataset,
        role=end.role,
        from_step=start.step,
        step=end.step,
        split=_split(start, end),
        recovered=accuracy_recovered(correction, end.images, end.resampling),
        end=end.accuracy,
        scale=correction.scale,
        offset_px=correction.offset,
        reason=correction.reason,
    )


def _split(start: SeedGroup, end: SeedGroup) -> Decomposition:
    return decompose_difference(start.correction, end.correction, end.images, end.resampling)


def _decomposition_line(origin: MethodDecomposition) -> DecompositionLine:
    split = origin.split
    parts = {
        "change": split.total,
        "coordinates": split.coordinates,
        "grounding": split.grounding,
        "recovered": origin.recovered,
    }
    points = {name: part.mean for name, part in parts.items()}
    lows = {f"{name}_ci_low": part.low for name, part in parts.items()}
    highs = {f"{name}_ci_high": part.high for name, part in parts.items()}
    return DecompositionLine(
        method=origin.method,
        dataset=origin.dataset,
        from_step=origin.from_step,
        step=origin.step,
        scale=origin.scale,
        offset_px=origin.offset_px,
        reason=origin.reason,
        **points,
        **lows,
        **highs,
    )


def _gain_gap(starts: dict[str, SeedGroup], ends: dict[str, SeedGroup]) -> Difference:
    gains = {m: 1.0 * ends[m].hit - starts[m].hit for m in METHODS}
    grpo = ends["grpo"]
    return paired_difference(gains["grpo"], gains["sft"], grpo.images, grpo.resampling)


def _image_count(point: SeedGroup) -> int:
    return len(set(point.images))
