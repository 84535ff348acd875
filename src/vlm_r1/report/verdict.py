"""The verdict in words, derived from the numbers; it claims no more than the tests show.

Its first line is about gains since step 0, because the methods have prompts of their own: part of
the difference between two checkpoints stands before any training.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from vlm_r1.report.analysis import LastStep
from vlm_r1.report.gains import Overall, set_verdict
from vlm_r1.report.schema import ChosenLine, Statistics, Verdict
from vlm_r1.report.verdict_details import details
from vlm_r1.report.wording import mean_of, p_text, points, runs_text, sign, span

CLAIM = "that reinforcement learning generalizes better than supervised fine-tuning"
UNFAIR = (
    "Whether reinforcement learning generalizes better than supervised fine-tuning stays open: the "
    "difference may be one of terms, not of methods."
)
UNVERIFIED = (
    "Whether reinforcement learning generalizes better than supervised fine-tuning stays open: "
    "these logs do not show that both methods were trained and asked on equal terms (base, pixel "
    "budget, prompts per step), so the difference may be one of terms, not of methods."
)


class Line(NamedTuple):
    """One of the three lines that a reader sees first."""

    label: str
    text: str


@dataclass(frozen=True)
class Findings:
    """What the verdict is derived from.

    Attributes:
        overall: the methods over all out-of-domain datasets; `sets` each of them, if several.
        last_steps: every tested dataset at the last common step.
        unfair: terms in which the contracts differ, "field: ...".
        verified: whether the results have contracts at all.
        extra: further sentences, as of the prompt matrix.
    """

    overall: Overall
    sets: list[Overall]
    last_steps: list[LastStep]
    statistics: Statistics
    chosen: list[ChosenLine] = field(default_factory=list)
    unfair: list[str] = field(default_factory=list)
    verified: bool = True
    extra: list[str] = field(default_factory=list)

    @property
    def seeds(self) -> int:
        """Training runs of each method."""
        return self.statistics.seeds


@dataclass(frozen=True)
class VerdictText:
    """The verdict for report.json, and what the pages show: a title, three lines, details.

    `verdict.text` is all of them but the title, joined.
    """

    verdict: Verdict
    title: str
    lines: list[Line]
    details: list[str]


def write_verdict(found: Findings) -> VerdictText:
    """The verdict at the last common step, over all out-of-domain datasets."""
    ood = found.overall
    lines = [
        Line("What training added", _gain_line(ood)),
        Line("As the checkpoints stand", _raw_line(ood)),
        Line("How certain", _certainty_line(found)),
    ]
    telling = [
        *details(found.sets, found.last_steps, found.statistics, found.chosen),
        *found.extra,
    ]
    title = _title(found)
    mean, low, high, p_value = ood.difference
    verdict = Verdict(
        title=title,
        text=" ".join([*_unfair(found.unfair), *(line.text for line in lines), *telling]),
        status="unfair" if found.unfair else "settled" if found.verified else "unverified",
        overall=set_verdict(ood),
        sets=[set_verdict(one) for one in found.sets],
        ood_dataset=mean_of(ood.datasets),
        step=ood.step,
        difference=mean,
        ci_low=low,
        ci_high=high,
        p_value=p_value,
    )
    return VerdictText(verdict, title, lines, telling)


def _title(found: Findings) -> str:
    """One run of each method is two checkpoints; only several tell about the methods."""
    if found.unfair:
        return "Unfair comparison"
    if not found.verified:
        return "Unsettled: these results do not state the terms they were made under"
    ahead = found.overall.sign
    what = "is ahead of" if found.overall.gain is None else "gained more than"
    if ahead == 0:
        shown = "lead" if found.overall.gain is None else "difference in what training added"
        return f"No {shown} is shown out of domain"
    first, second = ("GRPO", "SFT") if ahead > 0 else ("SFT", "GRPO")
    if found.seeds == 1:
        return f"This {first} checkpoint {what} this {second} checkpoint out of domain"
    return f"{first} {what} {second} out of domain"


def _unfair(unfair: list[str]) -> list[str]:
    fields = ", ".join(line.partition(":")[0] for line in unfair)
    return [f"UNFAIR COMPARISON: the contracts differ in {fields}."] if unfair else []


def _gain_line(ood: Overall) -> str:
    if ood.gain is None or ood.gain_p_holm is None:
        return "Unknown: without a step 0 nobody can tell what stood before training."
    claim = {
        1: "GRPO gained more",
        -1: "SFT gained more",
        0: "no difference is shown",
    }[ood.sign]
    return (
        f"From step 0 to {ood.step}, out of domain ({mean_of(ood.datasets)}), {claim}: GRPO "
        f"{points(ood.gains['grpo'])} points, SFT {points(ood.gains['sft'])}, difference of gains "
        f"{_difference(ood, ood.gain.mean, span(ood.gain), ood.gain.p_value, ood.gain_p_holm)}."
    )


def _raw_line(ood: Overall) -> str:
    claim = {1: "GRPO is ahead", -1: "SFT is ahead", 0: "no lead is shown"}[ood.raw_sign]
    raw = ood.difference
    before = ""
    if ood.gain is not None:
        start = raw.mean - ood.gain.mean
        before = f" Of that, {points(start)} stood at step 0, where only the prompts differ."
    return (
        f"Out of domain ({mean_of(ood.datasets)}) at step {ood.step}, {claim}: GRPO "
        f"{ood.accuracy['grpo']:.1f} %, SFT {ood.accuracy['sft']:.1f} %, difference "
        f"{_difference(ood, raw.mean, span(raw), raw.p_value, ood.p_holm)}.{before}"
    )


def _difference(ood: Overall, mean: float, interval: str, p_value: float, p_holm: float) -> str:
    tests = "one test" if ood.tests == 1 else f"{ood.tests} tests"
    return (
        f"{points(mean)} points ({100 * ood.confidence:g} % interval {interval}, "
        f"{p_text(p_value)}, after Holm over {tests} {p_text(p_holm)})"
    )


def _certainty_line(found: Findings) -> str:
    ood = found.overall
    basis = f"{ood.n} phrases on {ood.n_images} images, {runs_text(found.seeds)}."
    return f"{basis} {_conclusion(found)}"


def _conclusion(found: Findings) -> str:
    """What the numbers say about "reinforcement learning generalizes better"."""
    ood = found.overall
    if found.unfair:
        return UNFAIR
    if not found.verified:
        return UNVERIFIED
    if ood.sign == 0:
        return _nothing_shown(ood)
    if ood.gain is None:
        return (
            f"This does not show {CLAIM}, nor the opposite: without a step 0 the difference may be "
            "one of prompts."
        )
    verb = "supports" if ood.sign > 0 else "contradicts"
    limit = _limit_of_coordinates(ood)
    if found.seeds > 1:
        return f"This comparison, {runs_text(found.seeds)}, {verb} the claim {CLAIM}{limit}."
    side = "are in line with" if ood.sign > 0 else "speak against"
    return (
        f"These two checkpoints {side} the claim {CLAIM}{limit}; but they are one training run of "
        "each method, and how far other runs would end from them is not known."
    )


def _nothing_shown(ood: Overall) -> str:
    tested = ood.difference if ood.gain is None else ood.gain
    p_holm = ood.p_holm if ood.gain_p_holm is None else ood.gain_p_holm
    text = (
        f"This does not show {CLAIM}; the interval leaves room for {points(tested.low)} as well as "
        f"for {points(tested.high)} points."
    )
    if sign(tested) != 0:
        text += (
            f" {p_text(tested.p_value).capitalize()} is one of {ood.tests} tests; after Holm "
            f"{p_text(p_holm)}."
        )
    if ood.raw_sign != 0 and ood.gain is not None:
        text += (
            " Nor does it show the opposite: the difference as the checkpoints stand is not "
            "matched by a difference in what was gained since step 0."
        )
    return text


def _limit_of_coordinates(ood: Overall) -> str:
    """Where only box coordinates differ, not grounding."""
    grounded = sign(ood.grounding)
    if grounded == ood.sign:
        return ""
    left = "is not shown to differ" if grounded == 0 else "is the other way round"
    return (
        " only as far as box coordinates go (what is left when they are corrected, grounding, "
        f"{left})"
    )
