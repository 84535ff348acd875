"""report.json as a type: the one schema that tracking, flows and readers rely on.

Accuracies and differences are percent (points); `difference` is grpo minus sft; mean IoU and
parse rate are 0-1. A change of any field is a new SCHEMA_VERSION.
"""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from vlm_r1.data.versions import DatasetVersion

SCHEMA_VERSION = "4"


class Part(BaseModel):
    """A frozen piece of the report, no unknown fields."""

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
    digest: str | None  # of the records; null where a log does not tell
    quarantined: int | None = None  # rows that validation set aside; null where it is not told
    leakage: int | None = None  # its images shared across training and tests, excluded or not


class CurvePoint(Part):
    """One unit's scores; `corrected`: with its box coordinates corrected, cross-validated."""

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
    files: list[str]  # one a seed; `vlm-r1 score FILE --json` computes its accuracy again


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


class DecompositionLine(Part):
    """A method's change on a dataset = box coordinates + grounding, points.

    `recovered` is what the correction recovers at `step`: scale and offset (x, y), the mean of two
    fits, each of which was applied to the half of the images that it was not fitted on.
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
    """A difference in points with its interval, and p of there being none."""

    points: float
    ci_low: float
    ci_high: float
    p_value: float


class StepTest(Part):
    """p of no difference at one trained step, plain and adjusted for all of them (Holm)."""

    step: int
    p_value: float
    p_holm: float


class DatasetStatistics(Part):
    """grpo minus sft over all common steps of one dataset.

    The lasting leads are the first step from which on, to the last, the interval excludes zero on
    that side and p_holm is below 1 - confidence; null where there is none.
    """

    dataset: str
    steps: list[StepTest]
    first_step_above_zero: int | None
    first_step_below_zero: int | None
    minimum_detectable_effect: float | None  # points; null where no two answers differ
    area: Estimate | None  # mean difference over steps; null where there is one step


class MethodStatistics(Part):
    """One method between step 0 and the last step common to both datasets."""

    method: str
    id_dataset: str | None
    ood_dataset: str
    step: int
    forgetting: Estimate  # on the ood dataset: accuracy at step 0 minus at `step`
    generalization_gap: Estimate | None  # gain on the id dataset minus gain on the ood dataset


class Statistics(Part):
    """What is computed from whole curves; docs/statistics.md has the formulas."""

    seeds: int  # training runs of each method
    confidence: float  # of intervals, 0-1; tests are at 1 - confidence
    power: float  # of the minimum detectable effect, 0-1
    datasets: list[DatasetStatistics]
    methods: list[MethodStatistics]  # empty where step 0 or a later common step is missing


class SelectionLine(Part):
    """One method on one test set: the checkpoint chosen on validation, and the best here."""

    method: str
    dataset: str
    chosen_step: int
    accuracy: float
    best_step: int
    best_accuracy: float
    overclaim: float  # points that choosing on this test set would have claimed on top


class Cost(Part):
    """What training took; one completion a prompt for sft, several for grpo; flops estimated."""

    method: str
    seconds: float
    prompts: int
    completions: int
    tokens: int
    flops: float


class CostPerPoint(Part):
    """What a method's training spent on each point it gained since step 0 on the ood dataset.

    The ends of the intervals are cost / ends of the gain's interval. All null where `reason` says
    why there is no such number.
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
    """A term of the contract over all results: one value where it is equal, each where it is not.

    "unknown": the files tell no terms, so nobody can say.
    """

    term: str
    status: Literal["equal", "unequal", "unknown"]
    values: list[Any]


class Share(Part):
    """An accuracy, percent; no interval where all rows are on one image."""

    percent: float
    ci_low: float | None
    ci_high: float | None


class SliceLine(Part):
    """Both methods on the rows of one slice at the last common step; evaluation/slices.py."""

    dataset: str
    step: int
    dimension: str  # its unit is in its name
    name: str
    n: int
    n_images: int
    small: bool  # fewer rows than Slices.small_n
    sft: Share
    grpo: Share
    difference: Estimate | None  # grpo minus sft; null where all rows are on one image


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
    """One model under one prompt. `own`: the prompt its method is trained with."""

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
    """Logged quantities of a training, quantity -> [(step, value), ...]."""

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
    """A command line, and what it makes again."""

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
    selection: list[SelectionLine]  # empty where there are no validation results
    decomposition: list[DecompositionLine]
    fairness: list[FairnessTerm]
    slices: Slices
    prompts: list[PromptLine]  # empty where `report.prompt_matrix` is off
    published: list[PublishedSeries]  # empty unless a dataset is one that VLM-R1 published on
    training: list[TrainingLog]
    cost: list[Cost]
    cost_per_point: list[CostPerPoint]  # empty where costs are not known
    reproduce: list[Command]
    lineage: Lineage
    unfair: list[str] = []  # terms in which the contracts differ; written only where there are any

    def to_json(self) -> str:
        """The text of report.json."""
        values = self.model_dump(mode="json")
        if not self.unfair:
            del values["unfair"]
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"
