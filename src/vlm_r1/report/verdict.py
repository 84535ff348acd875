"""The verdict in words, computed from the numbers: never more than the intervals say."""

from dataclasses import dataclass

from vlm_r1.evaluation.coordinate_correction import Decomposition
from vlm_r1.report.analysis import LastStep, MethodDecomposition, MethodGain
from vlm_r1.report.schema import StepTest, Verdict
from vlm_r1.stats.intervals import Difference

NAMES = {"sft": "SFT", "grpo": "GRPO"}
PLACES = {"id": "in domain", "ood": "out of domain"}
UNVERIFIED = (
    "All this holds only if both methods were trained and asked on equal terms (base, pixel "
    "budget, prompts per step), which these logs do not show: the contract is unverified."
)
UNSETTLED = (
    "Whether reinforcement learning generalizes better than supervised fine-tuning stays open: the "
    "difference may be one of terms, not of methods."
)


@dataclass(frozen=True)
class VerdictText:
    """The verdict and its parts, for a page that shows them apart.

    `text` of the verdict is the sentences joined.
    """

    verdict: Verdict
    title: str
    sentences: list[str]


def write_verdict(
    ood: LastStep,
    in_domain: LastStep | None,
    confidence: float,
    unfair: list[str],
    verified: bool,
    tests: list[StepTest],
    seeds: int,
) -> VerdictText:
    """Judge at the last common step of the out-of-domain dataset.

    Args:
        confidence: of the intervals in `ood` and `in_domain`.
        unfair: terms in which the contracts differ, "field: ...".
        verified: whether there are contracts at all.
        tests: of the out-of-domain dataset's steps; the last is that of the verdict.
        seeds: training runs of each method.
    """
    outcome = sign(ood.difference)
    sentences = [
        *_unfair(unfair),
        _finding(ood, outcome, confidence, tests, seeds),
        *_movements([ood] if in_domain is None else [in_domain, ood]),
        *_start(ood, outcome),
        *_coordinates(ood),
        UNSETTLED if unfair else _story(ood, outcome, seeds),
        *([] if verified else [UNVERIFIED]),
    ]
    mean, low, high, p_value = ood.difference
    verdict = Verdict(
        text=" ".join(sentences),
        ood_dataset=ood.dataset,
        step=ood.step,
        difference=mean,
        ci_low=low,
        ci_high=high,
        p_value=p_value,
    )
    return VerdictText(verdict, "Unfair comparison" if unfair else _title(outcome), sentences)


def sign(difference: Difference) -> int:
    """1 or -1 where the whole interval lies on one side of zero, else 0."""
    return int(difference.low > 0) - int(difference.high < 0)


def points(value: float) -> str:
    """Percent points with their sign, e.g. "+4.1"; what rounds to zero is "0.0"."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def span(difference: Difference) -> str:
    """An interval in words, e.g. "-1.2 to +3.4"."""
    return f"{points(difference.low)} to {points(difference.high)}"


def p_text(p_value: float) -> str:
    """E.g. "p = 0.031" or "p < 0.001"."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _title(outcome: int) -> str:
    return {
        1: "GRPO is ahead out of domain",
        -1: "SFT is ahead out of domain",
        0: "No difference shown out of domain",
    }[outcome]


def _unfair(unfair: list[str]) -> list[str]:
    fields = ", ".join(line.partition(":")[0] for line in unfair)
    return [f"UNFAIR COMPARISON: the contracts differ in {fields}."] if unfair else []


def _finding(
    ood: LastStep, outcome: int, confidence: float, tests: list[StepTest], seeds: int
) -> str:
    claim = {
        1: "GRPO is better than SFT",
        -1: "SFT is better than GRPO",
        0: "no difference between GRPO and SFT is shown",
    }[outcome]
    return (
        f"Out of domain ({ood.dataset}) at step {ood.step}, {claim}: GRPO "
        f"{ood.accuracy['grpo']:.1f} %, SFT {ood.accuracy['sft']:.1f} %, difference "
        f"{points(ood.difference.mean)} points ({100 * confidence:g} % interval "
        f"{span(ood.difference)}, {p_text(ood.difference.p_value)}, after Holm over "
        f"{_steps(len(tests))} {p_text(tests[-1].p_holm)}, n = {ood.n} phrases on {ood.n_images} "
        f"images, {_runs(seeds)})."
    )


def _steps(count: int) -> str:
    return "one step" if count == 1 else f"{count} steps"


def _runs(seeds: int) -> str:
    return "one training run of each method" if seeds == 1 else f"{seeds} seeds of each method"


def _movements(places: list[LastStep]) -> list[str]:
    """One sentence a method: how far it moved since step 0, in each place."""
    sentences = []
    for method, name in NAMES.items():
        gains = [move for place in places for move in place.gains if move.method == method]
        if gains:
            sentences.append(f"Since step 0, {name} moved {' and '.join(map(_move, gains))}.")
    return sentences


def _move(move: MethodGain) -> str:
    place = f"{PLACES[move.role]} ({move.dataset})"
    return f"{points(move.gain.mean)} points ({span(move.gain)}) {place}"


def _start(ood: LastStep, outcome: int) -> list[str]:
    """What the prompts alone do to the base and what came on top, where the two are not one."""
    if ood.gain_gap is None or (sign(ood.start_gap) == 0 and sign(ood.gain_gap) == outcome):
        return []
    return [
        f"At step 0 the base itself, asked with GRPO's prompt, stood {points(ood.start_gap.mean)} "
        f"points ({span(ood.start_gap)}) from where SFT's prompt put it; since then GRPO gained "
        f"{points(ood.gain_gap.mean)} points ({span(ood.gain_gap)}) relative to SFT."
    ]


def _coordinates(ood: LastStep) -> list[str]:
    """Which part of the changes and of the difference is coordinates, which is grounding."""
    if ood.split is None:
        return []
    telling = [
        o for o in ood.method_decompositions if sign(o.recovered) or sign(o.split.coordinates)
    ]
    if not telling:
        reasons = dict.fromkeys(o.reason for o in ood.method_decompositions)
        reason = next(iter(reasons)) if len(reasons) == 1 else None
        return [
            "Correcting the box coordinates (one scale and offset per axis) recovers nothing "
            f"significant out of domain{f': {reason}' if reason else ''}."
        ]
    return [
        "One scale and offset per axis, fitted on half of the images and applied to the others, "
        f"{' and '.join(map(_repair, telling))} out of domain.",
        *(_shares(f"{NAMES[o.method]}'s", f"since step {o.from_step}", o.split) for o in telling
          if o.from_step < o.step),
        _shares("the difference of", f"between GRPO and SFT at step {ood.step}", ood.split),
    ]  # fmt: skip


def _repair(origin: MethodDecomposition) -> str:
    end = origin.end + origin.recovered.mean
    return (
        f"takes {NAMES[origin.method]} from {origin.end:.1f} to {end:.1f} % "
        f"({points(origin.recovered.mean)} points, {span(origin.recovered)})"
    )


def _shares(whose: str, when: str, split: Decomposition) -> str:
    return (
        f"Of {whose} {points(split.total.mean)} points {when}, {points(split.coordinates.mean)} "
        f"({span(split.coordinates)}) are box coordinates and {points(split.grounding.mean)} "
        f"({span(split.grounding)}) grounding."
    )


def _story(ood: LastStep, outcome: int, seeds: int) -> str:
    """What the numbers say about "reinforcement learning generalizes better"."""
    claim = "that reinforcement learning generalizes better than supervised fine-tuning"
    gained = outcome if ood.gain_gap is None else sign(ood.gain_gap)
    if outcome == 0:
        return (
            f"This comparison does not show {claim}; the interval leaves room for "
            f"{points(ood.difference.low)} as well as for {points(ood.difference.high)} points."
        )
    if gained != outcome:
        return (
            f"This comparison does not show {claim}, nor the opposite: the difference at step "
            f"{ood.step} is not matched by a difference in what was gained since step 0."
        )
    verb = "supports" if outcome > 0 else "contradicts"
    if ood.split is not None and sign(ood.split.grounding) != outcome:
        left = "is the other way round" if sign(ood.split.grounding) else "is not shown to differ"
        return (
            f"This comparison {verb} the claim {claim} only as far as box coordinates go: what is "
            f"left when they are corrected, grounding, {left}."
        )
    return f"This comparison, {_runs(seeds)}, {verb} the claim {claim}."
