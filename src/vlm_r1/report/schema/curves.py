"""report.json: the verdict, curves and differences at equal steps."""

from typing import Literal

from vlm_r1.report.schema.base import Estimate, Part


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
