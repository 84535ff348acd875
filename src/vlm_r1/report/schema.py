"""The schema of report.json, which tracking, flows and readers rely on.

Accuracies are percent and differences percentage points; `difference` is grpo minus sft; mean IoU
and parse rate are 0-1. Changing any field requires a new SCHEMA_VERSION.
"""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from vlm_r1.data.versions import DatasetVersion

SCHEMA_VERSION = "4"


class Part(BaseModel):
    """Base of every part of the report: immutable, unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Verdict(Part):
    """The answer, at the last common step on the first out-of-domain dataset."""

    text: str
    ood_dataset: str
    step: int
    difference: float
    ci_low: float
    ci_high: float
    p_value: float


class DatasetLine(Part):
    """A dataset and its size."""

    name: str
    role: str
    records: int
    images: int
    digest: str | None  # of the records; null for logs, which do not state it
    quarantined: int | None = None  # rows that validation set aside; null if unknown
    leakage: int | None = None  # images it shares across training and tests, excluded or not


class CurvePoint(Part):
    """Scores of one method at one step on one dataset.

    `corrected`: with the box coordinates corrected, two-fold cross-fitted over images.
    """

    method: str
    dataset: str
    step: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    mean_iou: float
    parse_rate: float
    corrected_accuracy: float
    corrected_ci_low: float
    corrected_ci_high: float
    files: list[str]  # one per seed; `vlm-r1 score FILE --json` recomputes its accuracy


class Comparison(Part):
    """grpo minus sft on the same rows; `corrected` as in `CurvePoint`."""

    dataset: str
    step: int
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    n: int
    n_images: int
    corrected_difference: float
    corrected_ci_low: float
    corrected_ci_high: float


class CoordinateFlag(Part):
    """A result whose boxes score significantly better in another coordinate space.

    `large`: reading them in `assumed` loses at least a fifth of the boxes found in `better`.
    """

    method: str
    dataset: str
    step: int
    seed: int | None
    assumed: str
    better: str
    accuracy: float
    better_accuracy: float
    gain: float
    ci_low: float
    ci_high: float
    large: bool
    file: str
    text: str


class DecompositionLine(Part):
    """A method's change on a dataset, split into box coordinates and grounding, in points.

    `recovered` is what the correction recovers at `step`. `scale` and `offset_px` (x, y) are means
    over the two fits of the cross-fitting, each applied to the half it was not fitted on.
    """

    method: str
    dataset: str
    from_step: int
    step: int
    change: float
    change_ci_low: float
    change_ci_high: float
    coordinates: float
    coordinates_ci_low: float
    coordinates_ci_high: float
    grounding: float
    grounding_ci_low: float
    grounding_ci_high: float
    recovered: float
    recovered_ci_low: float
    recovered_ci_high: float
    scale: tuple[float, float]
    offset_px: tuple[float, float]
    reason: str | None  # why nothing was corrected; null where something was


class Estimate(Part):
    """A difference in points with its interval and its p value."""

    points: float
    ci_low: float
    ci_high: float
    p_value: float


class StepTest(Part):
    """p value at one trained step, unadjusted and adjusted for all of them (Holm)."""

    step: int
    p_value: float
    p_holm: float


class DatasetStatistics(Part):
    """grpo minus sft over all common steps of one dataset.

    `first_step_above_zero` (`below`) is the first step from which on, up to the last one, every
    interval is above (below) zero and p_holm is below 1 - confidence; null if there is none.
    """

    dataset: str
    steps: list[StepTest]
    first_step_above_zero: int | None
    first_step_below_zero: int | None
    minimum_detectable_effect: float | None  # points; null if no two answers differ
    area: Estimate | None  # mean difference over steps; null for a single step


class MethodStatistics(Part):
    """One method between step 0 and the last step common to both datasets."""

    method: str
    id_dataset: str | None
    ood_dataset: str
    step: int
    forgetting: Estimate  # on the ood dataset: accuracy at step 0 minus at `step`
    generalization_gap: Estimate | None  # gain on the id dataset minus gain on the ood dataset


class Statistics(Part):
    """What is computed from whole curves; formulas are in docs/statistics.md."""

    seeds: int  # training runs of each method
    confidence: float  # of intervals, 0-1; tests are at 1 - confidence
    power: float  # of the minimum detectable effect, 0-1
    datasets: list[DatasetStatistics]
    methods: list[MethodStatistics]  # empty if step 0 or a later common step is missing


class SelectionLine(Part):
    """One method on one test set: the checkpoint chosen on validation and the best on the test."""

    method: str
    dataset: str
    chosen_step: int
    accuracy: float
    best_step: int
    best_accuracy: float
    overclaim: float  # points that choosing on this test set would add


class Cost(Part):
    """What training took. sft has one completion per prompt, grpo several; flops are estimated."""

    method: str
    seconds: float
    prompts: int
    completions: int
    tokens: int
    flops: float


class CostPerPoint(Part):
    """Training cost of each point that a method gained since step 0 on the ood dataset.

    Intervals are the cost divided by the ends of the gain's interval. Where the ratio would mean
    nothing it is null, and `reason` says why.
    """

    method: str
    dataset: str
    step: int
    gain: float | None
    gain_ci_low: float | None
    gain_ci_high: float | None
    seconds: float | None = None
    seconds_ci_low: float | None = None
    seconds_ci_high: float | None = None
    tokens: float | None = None
    tokens_ci_low: float | None = None
    tokens_ci_high: float | None = None
    reason: str | None = None


class FairnessTerm(Part):
    """A term of the contract over all results: its one value, or every value if they differ.

    "unknown": the files state no terms.
    """

    term: str
    status: Literal["equal", "unequal", "unknown"]
    values: list[Any]


class Share(Part):
    """An accuracy in percent; no interval if all rows are on one image."""

    percent: float
    ci_low: float | None
    ci_high: float | None


class SliceLine(Part):
    """Both methods on the rows of one slice at the last common step (see evaluation/slices.py)."""

    dataset: str
    step: int
    dimension: str  # the name contains the unit
    name: str
    n: int
    n_images: int
    small: bool  # fewer rows than Slices.small_n
    sft: Share
    grpo: Share
    difference: Estimate | None  # grpo minus sft; null if all rows are on one image


class LeftOut(Part):
    """A dimension by which a dataset's rows could not be sliced, and why."""

    dataset: str
    dimension: str
    reason: str


class Slices(Part):
    """Every slice of every tested dataset."""

    small_n: int
    lines: list[SliceLine]
    left_out: list[LeftOut]


class PromptLine(Part):
    """One model under one prompt; `own` marks the prompt that its method is trained with."""

    model: str  # base, sft or grpo
    step: int
    template: str
    own: bool
    dataset: str
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    parse_rate: float
    best_space: str | None  # another coordinate space in which its boxes score significantly better
    file: str


class TrainingLog(Part):
    """Logged quantities of a training: quantity -> [(step, value), ...]."""

    method: str
    quantities: dict[str, list[tuple[int, float]]]
    reason: str | None = None  # why there are none


class PublishedSeries(Part):
    """A published curve on a dataset of this report, or on the mean of several of them."""

    source: str
    method: str
    datasets: list[str]
    points: list[tuple[int, float]]  # (step, percent)
    withdrawn: bool
    note: str


class Command(Part):
    """A command line and what it reproduces."""

    what: str
    command: str


class Lineage(Part):
    """Code, data, packages and tracking run behind the numbers."""

    git_commit: str | None = None
    data: dict[str, DatasetVersion] = {}  # dataset -> the files it was read from
    dvc: dict[str, dict[str, str]] = {}  # stage -> output -> md5
    versions: dict[str, str | None] = {}
    mlflow_run_id: str | None = None


class Report(Part):
    """All of report.json."""

    schema_version: str = SCHEMA_VERSION
    verdict: Verdict
    contract: dict[str, Any]
    datasets: list[DatasetLine]
    curves: list[CurvePoint]
    comparisons: list[Comparison]
    statistics: Statistics
    selection: list[SelectionLine]  # empty if there are no validation results
    decomposition: list[DecompositionLine]
    coordinate_flags: list[CoordinateFlag]  # empty if every result's boxes are in its space
    fairness: list[FairnessTerm]
    slices: Slices
    prompts: list[PromptLine]  # empty if `report.prompt_matrix` is off
    published: list[PublishedSeries]  # empty unless a dataset is one that VLM-R1 published on
    training: list[TrainingLog]
    cost: list[Cost]
    cost_per_point: list[CostPerPoint]  # empty if costs are unknown
    reproduce: list[Command]
    lineage: Lineage
    unfair: list[str] = []  # terms in which the contracts differ; not written if empty

    def to_json(self) -> str:
        """The text of report.json."""
        values = self.model_dump(mode="json")
        if not self.unfair:
            del values["unfair"]
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"
