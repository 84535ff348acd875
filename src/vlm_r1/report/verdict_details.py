"""The verdict's further sentences: each dataset, each method, gaps, coordinates, chosen steps."""

import numpy as np

from vlm_r1.evaluation.coordinate_correction import Decomposition
from vlm_r1.report.analysis import LastStep, MethodDecomposition, MethodGain
from vlm_r1.report.gains import Overall
from vlm_r1.report.schema import ChosenLine, GapDifference, MethodStatistics, Statistics
from vlm_r1.report.wording import NAMES, PLACES, mean_of, p_text, points, sign, span


def details(
    sets: list[Overall],
    last_steps: list[LastStep],
    statistics: Statistics,
    chosen: list[ChosenLine],
) -> list[str]:
    """The sentences after the verdict's three lines, most important first."""
    ood = [last for last in last_steps if last.role == "ood"]
    return [
        *map(_set, sets),
        *(_gap(line, _of_pairs(statistics, line)) for line in statistics.gap_differences[-1:]),
        *_gains(last_steps),
        *(sentence for last in ood for sentence in _start(last)),
        *(sentence for last in ood for sentence in _coordinates(last)),
        *(_chosen(line) for line in chosen if line.dataset in {last.dataset for last in ood}),
    ]


def _set(found: Overall) -> str:
    """One of several out-of-domain datasets."""
    tested = found.difference if found.gain is None else found.gain
    p_holm = found.p_holm if found.gain_p_holm is None else found.gain_p_holm
    of_what = "difference" if found.gain is None else "difference of gains"
    claim = {1: "in GRPO's favor", -1: "in SFT's favor", 0: "not shown"}[found.sign]
    return (
        f"On {found.datasets[0]} alone, the {of_what} is {points(tested.mean)} points "
        f"({span(tested)}, after Holm over {found.tests} tests {p_text(p_holm)}): {claim}."
    )


def _of_pairs(statistics: Statistics, line: GapDifference) -> list[MethodStatistics]:
    """Both methods on each pair of datasets that `line` is about."""
    return [
        one
        for one in statistics.methods
        if one.id_dataset in line.id_datasets and one.ood_dataset in line.ood_datasets
    ]


def _gap(line: GapDifference, methods: list[MethodStatistics]) -> str:
    """The title's question in one number: does GRPO carry more of its gain over than SFT?"""
    found = line.difference
    gaps = {
        method: float(
            np.mean(
                [
                    one.generalization_gap.points
                    for one in methods
                    if one.method == method and one.generalization_gap is not None
                ]
            )
        )
        for method in NAMES
    }
    claim = "no difference is shown"
    if found.ci_high < 0 or found.ci_low > 0:
        claim = f"GRPO carries {'more' if found.points < 0 else 'less'} of its gain over"
    return (
        f"Generalization gap, the gain in domain ({mean_of(line.id_datasets)}) minus that out of "
        f"domain ({mean_of(line.ood_datasets)}): GRPO {points(gaps['grpo'])}, SFT "
        f"{points(gaps['sft'])}, difference {points(found.points)} points "
        f"({points(found.ci_low)} to {points(found.ci_high)}, {p_text(found.p_value)}): {claim}."
    )


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


def _start(ood: LastStep) -> list[str]:
    """The prompts' effect at step 0, where it is not nothing."""
    if ood.start_gap is None or sign(ood.start_gap) == 0:
        return []
    return [
        f"At step 0 the base itself, asked with GRPO's prompt, stood {points(ood.start_gap.mean)} "
        f"points ({span(ood.start_gap)}) from where SFT's prompt put it on {ood.dataset}."
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
            f"significant out of domain ({ood.dataset}){f': {reason}' if reason else ''}."
        ]
    return [
        "One scale and offset per axis, fitted on half of the images and applied to the others, "
        f"{' and '.join(map(_repair, telling))} out of domain ({ood.dataset}).",
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


def _chosen(line: ChosenLine) -> str:
    raw = line.difference
    gained = ""
    if line.gain is not None:
        gained = (
            f", {points(line.gain.points)} in gains ({points(line.gain.ci_low)} to "
            f"{points(line.gain.ci_high)}, {p_text(line.gain.p_value)})"
        )
    return (
        f"The checkpoints that validation chose (GRPO step {_steps(line.grpo_steps)}, SFT step "
        f"{_steps(line.sft_steps)}) differ by {points(raw.points)} points on {line.dataset} "
        f"({points(raw.ci_low)} to {points(raw.ci_high)}, {p_text(raw.p_value)}){gained}."
    )


def _steps(steps: list[int]) -> str:
    return ", ".join(map(str, steps))
