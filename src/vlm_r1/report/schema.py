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


class Estimate(Part):
    """A difference in points with its interval and its p value."""

    points: float
    ci_low: float
    ci_high: float
    p_value: float


class SetVerdict(Part):
    """Both methods at the last common step on one out-of-domain dataset, or the mean of several.

    `difference` is grpo minus sft as the checkpoints stand, `gain` the difference of their gains
    since step 0 (null without a step 0). p_holm and gain_p_holm are adjusted for all trained steps
    (and, for one of several datasets, for all datasets). `outcome` is that of `gain`, or of
    `difference` without a step 0: a method is ahead if the interval excludes 0 and p after Holm is
    below 1 - confidence.
    """

    datasets: list[str]
    step: int
    difference: Estimate
    p_holm: float
    gain: Estimate | None
    gain_p_holm: float | None
    outcome: Literal["grpo", "sft", "open"]


class Verdict(Part):
    """The answer, at the last common step out of domain; `sets` has each dataset if several.

    difference, ci_low, ci_high and p_value are those of `overall.difference`, for readers of one
    number.
    """

    title: str
    text: str
    status: Literal["settled", "unfair", "unverified"]  # unverified: the files state no terms
    overall: SetVerdict
    sets: list[SetVerdict]
    ood_dataset: str  # "mean of a, b" for several
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
    choice_leakage: int | None = None  # the same across validation and tests


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


class GainLine(Part):
    """Difference of gains since step 0: (grpo_t - grpo_0) - (sft_t - sft_0), on the same rows.

    p_holm is adjusted for all trained steps of the dataset.
    """

    dataset: str
    step: int
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    p_holm: float


class PooledLine(Part):
    """Mean over all out-of-domain datasets, each counting alike, of `Comparison` and `GainLine`."""

    datasets: list[str]
    step: int
    difference: Estimate
    p_holm: float
    gain: Estimate | None  # null without a step 0
    gain_p_holm: float | None


class ChosenLine(Part):
    """grpo minus sft at the checkpoints that validation chose: one step per training run."""

    dataset: str
    grpo_steps: list[int]
    sft_steps: list[int]
    grpo_accuracy: float
    sft_accuracy: float
    difference: Estimate
    gain: Estimate | None  # difference of gains since step 0; null without a step 0


class GapDifference(Part):
    """grpo's generalization gap minus sft's: below 0 where grpo carries more of its gain over.

    Gains are means over the datasets, each counting alike.
    """

    id_datasets: list[str]
    ood_datasets: list[str]
    step: int
    difference: Estimate


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


class StepTest(Part):
    """p value at one trained step, unadjusted and adjusted for all of them (Holm)."""

    step: int
    p_value: float
    p_holm: float


class CurveSummary(Part):
    """A difference between the methods over all common steps of one dataset.

    `first_step_above_zero` (`below`) is the first step from which on, up to the last one, every
    interval is above (below) zero and p_holm is below 1 - confidence; null if there is none.
    """

    first_step_above_zero: int | None
    first_step_below_zero: int | None
    minimum_detectable_effect: float | None  # points, at the last step; null if nothing differs
    area: Estimate | None  # mean difference over steps; null for a single step


class DatasetStatistics(CurveSummary):
    """grpo minus sft as the checkpoints stand; `gain` is the same for gains since step 0."""

    dataset: str
    steps: list[StepTest]
    gain: CurveSummary | None  # null without step 0 and a later one


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
    methods: list[MethodStatistics]  # each pair of datasets with step 0 and a later common step
    gap_differences: list[GapDifference]  # the same pairs; then, if several, the mean over all


class SelectionLine(Part):
    """One training run on one test set: the checkpoint chosen on validation, the best on the test.

    `seed` is that of the run, null if the files do not tell.
    """

    method: str
    seed: int | None
    dataset: str
    chosen_step: int
    accuracy: float
    best_step: int
    best_accuracy: float
    overclaim: float  # points that choosing on this test set would add


class CheckpointCost(Part):
    """What a training has taken up to a checkpoint."""

    step: int
    seconds: float
    tokens: int
    flops: float


class Cost(Part):
    """What training took; sft has one completion per prompt, grpo several.

    `checkpoints`: the same up to each checkpoint; empty in files that do not tell.
    """

    method: str
    seconds: float
    prompts: int
    completions: int
    tokens: int
    flops: float
    checkpoints: list[CheckpointCost] = []


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


class ComputePoint(Part):
    """Accuracy in percent, and what training had taken by then: mean over the training runs."""

    method: str
    dataset: str
    step: int
    seconds: float
    tokens: int
    flops: float
    accuracy: float


class ComputeMatch(Part):
    """Both methods after equal FLOPs; accuracies are interpolated between the two steps named.

    `gain`: the same difference of what each method has gained since step 0. p_holm: over the
    dataset's budgets.
    """

    dataset: str
    flops: float
    sft_steps: tuple[int, int]
    grpo_steps: tuple[int, int]
    sft: float
    grpo: float
    difference: Estimate
    difference_p_holm: float
    gain: Estimate
    gain_p_holm: float


class NearestCheckpoints(Part):
    """A checkpoint of each method, nearest to each other in FLOPs; ratios are grpo's to sft's."""

    dataset: str
    sft_step: int
    grpo_step: int
    flops_ratio: float
    seconds_ratio: float | None  # null if sft took no measurable time
    sft: float
    grpo: float
    difference: Estimate


class Compute(Part):
    """Accuracy against cost, and the comparison at equal FLOPs; empty if costs are unknown."""

    points: list[ComputePoint]
    matched: list[ComputeMatch]  # by FLOPs, up to what both methods have spent
    nearest: list[NearestCheckpoints]
    reason: str | None = None  # why it is empty


class ChoiceLine(Part):
    """One setting of the two trainings; `only`: the one method that has such a setting."""

    term: str
    sft: Any
    grpo: Any
    only: str | None = None


class CandidateLine(Part):
    """A learning rate that a search tried, and its last checkpoint on the validation records."""

    method: str
    learning_rate: float
    step: int
    accuracy: float
    mean_iou: float
    seconds: float
    flops: float
    chosen: bool


class Choices(Part):
    """What each method was trained with, and what was tried for it."""

    lines: list[ChoiceLine]  # empty if the files do not tell
    candidates: list[CandidateLine]  # empty without a search


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


class ThresholdLine(Part):
    """Both methods at the last common step, counting answers with an IoU above `threshold`.

    Without a threshold: mean IoU, as percent. `gain` is grpo's gain since step 0 minus sft's.
    """

    dataset: str
    step: int
    threshold: float | None
    sft: float
    grpo: float
    difference: Estimate  # grpo minus sft
    gain: Estimate | None  # null without a step 0


class PromptLine(Part):
    """One model under one prompt; `own` marks the prompt that its method is trained with."""

    model: str  # base, sft or grpo
    step: int
    seed: int | None  # of the training run; null for the base
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


class CommonPromptLine(Part):
    """Both methods at the last common step, asked with one and the same prompt.

    `difference` is grpo minus sft, which is the difference of gains too: the base is one model.
    p_holm is adjusted for the prompts of the dataset.
    """

    dataset: str
    step: int
    template: str
    n: int
    sft: float
    grpo: float
    difference: Estimate
    p_holm: float


class CommonPrompts(Part):
    """What is left of the difference under each common prompt; empty if the matrix is off."""

    lines: list[CommonPromptLine]
    sentence: str | None  # about the out-of-domain datasets


class Lengths(Part):
    """Lengths of answers."""

    mean: float
    median: float
    p95: float
    longest: int


class AnswerLine(Part):
    """What one method's answers look like; shares in percent, over all runs.

    Tokens are those generated, an end of turn included. cut_off: ended by the token limit.
    thought: with a `<think>`.
    """

    method: str
    dataset: str
    step: int
    n: int
    tokens: Lengths | None  # null if the files do not tell, as logs of others
    characters: Lengths | None
    cut_off: float | None  # likewise
    thought: float
    no_box: float
    thought_without_box: float


class CutOffLine(Part):
    """Share of answers cut off by the token limit, grpo minus sft; p_holm over the steps."""

    dataset: str
    step: int
    grpo: float
    sft: float
    difference: Estimate
    p_holm: float


class Answers(Part):
    """What answers look like; `warnings` where cut-offs differ significantly after Holm."""

    lines: list[AnswerLine]
    cut_offs: list[CutOffLine]  # empty if the files do not tell
    warnings: list[str]


class RepeatLine(Part):
    """Accuracy of sampled answers, and the variance of one answer's hit (0 or 1), split in two."""

    method: str
    dataset: str
    step: int
    repeats: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    greedy: float
    within: float | None  # between the answers to one question; null for a single repeat
    between: float | None  # between the questions


class RepeatDifference(Part):
    """grpo minus sft, both by their sampled answers."""

    dataset: str
    step: int
    difference: Estimate


class Repeats(Part):
    """Answers sampled several times; `sampling` is the contract's term `repeats`."""

    sampling: str
    lines: list[RepeatLine]
    differences: list[RepeatDifference]


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
    gains: list[GainLine]  # empty without step 0
    comparisons: list[Comparison]
    pooled: list[PooledLine]  # empty unless there are several out-of-domain datasets
    statistics: Statistics
    selection: list[SelectionLine]  # empty if there are no validation results
    chosen: list[ChosenLine]  # as `selection`
    decomposition: list[DecompositionLine]
    coordinate_flags: list[CoordinateFlag]  # empty if every result's boxes are in its space
    fairness: list[FairnessTerm]
    choices: Choices
    slices: Slices
    thresholds: list[ThresholdLine]
    answers: Answers
    repeats: Repeats | None  # null if `evaluate.repeats` is 0
    prompts: list[PromptLine]  # empty if `report.prompt_matrix` is off
    common_prompts: CommonPrompts
    published: list[PublishedSeries]  # empty unless a dataset is one that VLM-R1 published on
    training: list[TrainingLog]
    cost: list[Cost]
    cost_per_point: list[CostPerPoint]  # empty if costs are unknown
    compute: Compute
    reproduce: list[Command]
    lineage: Lineage
    unfair: list[str] = []  # terms in which the contracts differ; not written if empty

    def to_json(self) -> str:
        """The text of report.json."""
        values = self.model_dump(mode="json")
        if not self.unfair:
            del values["unfair"]
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"
