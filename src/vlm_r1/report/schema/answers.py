"""report.json: slices, prompts, and what answers look like."""

from vlm_r1.report.schema.base import Estimate, Part, Share


class SliceLine(Part):
    """Both methods on the rows of one slice at the last common step (see evaluation/slices.py)."""

    dataset: str
    step: int
    dimension: str  # the name contains the unit
    name: str
    n: int
    n_images: int
    n_discordant: int  # images on which the methods differ
    undecided: bool  # fewer of those than Slices.min_discordant
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

    min_discordant: int  # images; with fewer no p can be below 1 - confidence
    lines: list[SliceLine]
    left_out: list[LeftOut]


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


class DetectionLine(Part):
    """Rows with several boxes, at one step; percent, over all runs.

    f1 is the mean over rows, with its interval; precision and recall are shares of all boxes;
    all_right is the accuracy of `curves`.
    """

    method: str
    dataset: str
    step: int
    n: int
    f1: float
    ci_low: float
    ci_high: float
    precision: float
    recall: float
    all_right: float


class DetectionDifference(Part):
    """Mean F1, grpo minus sft, in points; p_holm over the steps of the dataset."""

    dataset: str
    step: int
    f1: Estimate
    p_holm: float


class Detection(Part):
    """Datasets whose rows have several boxes (evaluation/detection.py)."""

    lines: list[DetectionLine]
    differences: list[DetectionDifference]
