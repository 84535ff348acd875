"""report.json: what is computed from whole curves, and the choice of checkpoints."""

from vlm_r1.report.schema.base import Estimate, Part
from vlm_r1.report.schema.curves import GapDifference


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
