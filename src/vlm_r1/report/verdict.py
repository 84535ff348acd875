"""The verdict in words, derived from the numbers; it claims no more than the intervals show."""

from dataclasses import dataclass

from vlm_r1.evaluation.coordinate_correction import Decomposition
from vlm_r1.report.analysis import LastStep, MethodDecomposition, MethodGain
from vlm_r1.report.schema import Statistics, Verdict
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
    """The verdict for report.json, with a title and its sentences for the pages.

    `verdict.text` is the sentences joined.
    """

    verdict: Verdict
    title: str
    sentences: list[str]


def write_verdict(
    ood: LastStep,
    in_domain: LastStep | None,
    statistics: Statistics,
    unfair: list[str],
    verified: bool,
) -> VerdictText:
    """The verdict at the last common step of the out-of-domain dataset.

    Args:
        statistics: the report's block; its tests on the out-of-domain dataset end at that step.
        unfair: terms in which the contracts differ, "field: ...".
        verified: whether the results have contracts at all.
    """
    outcome = sign(ood.difference)
    sentences = [
        *_unfair(unfair),
        _finding(ood, outcome, statistics),
        *_gains([ood] if in_domain is None else [in_domain, ood]),
        *_start(ood, outcome),
        *_coordinates(ood),
        UNSETTLED if unfair else _conclusion(ood, outcome, statistics.seeds),
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
    """1 or -1 if the whole interval lies on one side of zero, else 0."""
    return int(difference.low > 0) - int(difference.high < 0)


def points(value: float) -> str:
    """Percent points with their sign, e.g. "+4.1"; "0.0" if they round to zero."""
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


def _finding(ood: LastStep, outcome: int, statistics: Statistics) -> str:
    claim = {
        1: "GRPO is better than SFT",
        -1: "SFT is better than GRPO",
        0: "no difference between GRPO and SFT is shown",
    }[outcome]
    tests = next(one.steps for one in statistics.datasets if one.dataset == ood.dataset)
    return (
        f"Out of domain ({ood.dataset}) at step {ood.step}, {claim}: GRPO "
        f"{ood.accuracy['grpo']:.1f} %, SFT {ood.accuracy['sft']:.1f} %, difference "
        f"{points(ood.difference.mean)} points ({100 * statistics.confidence:g} % interval "
        f"{span(ood.difference)}, {p_text(ood.difference.p_value)}, after Holm over "
        f"{_steps(len(tests))} {p_text(tests[-1].p_holm)}, n = {ood.n} phrases on {ood.n_images} "
        f"images, {_runs(statistics.seeds)})."
    )


def _steps(count: int) -> str:
    return "one step" if count == 1 else f"{count} steps"


def _runs(seeds: int) -> str:
    return "one training run of each method" if seeds == 1 else f"{seeds} seeds of each method"


def _gains(places: list[LastStep]) -> list[str]:
    """One sentence per method: how far it moved since step 0 on each dataset."""
    sentences = []
    for method, name in NAMES.items():
        gains = [gain for place in places for gain in place.gains if gain.method == method]
        if gains:
            sentences.append(f"Since step 0, {name} moved {' and '.join(map(_gain, gains))}.")
    return sentences


def _gain(found: MethodGain) -> str:
    place = f"{PLACES[found.role]} ({found.dataset})"
    return f"{points(found.gain.mean)} points ({span(found.gain)}) {place}"


def _start(ood: LastStep, outcome: int) -> list[str]:
    """The prompts' effect at step 0 and what was gained since, unless both say the same."""
    start_gap, gain_gap = ood.start_gap, ood.gain_gap
    if start_gap is None or gain_gap is None:
        return []
    if sign(start_gap) == 0 and sign(gain_gap) == outcome:
        return []
    return [
        f"At step 0 the base itself, asked with GRPO's prompt, stood {points(start_gap.mean)} "
        f"points ({span(start_gap)}) from where SFT's prompt put it; since then GRPO gained "
        f"{points(gain_gap.mean)} points ({span(gain_gap)}) relative to SFT."
    ]


def _coordinates(ood: LastStep) -> list[str]:
    """How much of the changes and of the difference is coordinates, and how much grounding."""
    if ood.decomposition is None:
        return []
    parts = ood.method_decompositions
    telling = [part for part in parts if sign(part.recovered) or sign(part.change.coordinates)]
    if not telling:
        reasons = dict.fromkeys(part.reason for part in parts)
        reason = next(iter(reasons)) if len(reasons) == 1 else None
        return [
            "Correcting the box coordinates (one scale and offset per axis) recovers nothing "
            f"significant out of domain{f': {reason}' if reason else ''}."
        ]
    return [
        "One scale and offset per axis, fitted on half of the images and applied to the others, "
        f"{' and '.join(map(_repair, telling))} out of domain.",
        *(
            _shares(f"{NAMES[part.method]}'s", f"since step {part.from_step}", part.change)
            for part in telling
            if part.from_step < part.step
        ),
        _shares("the difference of", f"between GRPO and SFT at step {ood.step}", ood.decomposition),
    ]


def _repair(part: MethodDecomposition) -> str:
    corrected = part.end + part.recovered.mean
    return (
        f"takes {NAMES[part.method]} from {part.end:.1f} to {corrected:.1f} % "
        f"({points(part.recovered.mean)} points, {span(part.recovered)})"
    )


def _shares(whose: str, when: str, change: Decomposition) -> str:
    return (
        f"Of {whose} {points(change.total.mean)} points {when}, {points(change.coordinates.mean)} "
        f"({span(change.coordinates)}) are box coordinates and {points(change.grounding.mean)} "
        f"({span(change.grounding)}) grounding."
    )


def _conclusion(ood: LastStep, outcome: int, seeds: int) -> str:
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
    if ood.decomposition is not None and sign(ood.decomposition.grounding) != outcome:
        reversed_sign = sign(ood.decomposition.grounding) != 0
        left = "is the other way round" if reversed_sign else "is not shown to differ"
        return (
            f"This comparison {verb} the claim {claim} only as far as box coordinates go: what is "
            f"left when they are corrected, grounding, {left}."
        )
    return f"This comparison, {_runs(seeds)}, {verb} the claim {claim}."
