"""report.json: what training cost, terms, and what was chosen per method."""

from typing import Any, Literal

from pydantic import Field

from vlm_r1.report.schema.base import Estimate, Part


class CheckpointCost(Part):
    """What a training has taken up to a checkpoint."""

    step: int
    seconds: float
    tokens: int
    flops: float


class Cost(Part):
    """What training took, the mean over a method's runs; sft has one completion a prompt.

    `checkpoints`: the same up to each checkpoint; empty in files that do not tell.
    """

    method: str
    seconds: float
    prompts: int
    completions: int
    tokens: int
    flops: float
    checkpoints: list[CheckpointCost] = Field(default_factory=list)


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
