"""Table of results -> differences of gains since step 0, pooled and overall differences.

The gain is what training added: the accuracy of a checkpoint minus that of step 0 under the same
prompt. GRPO minus SFT as the checkpoints stand contains the effect of the prompts, which differ;
the difference of gains does not.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from vlm_r1.config import METHODS
from vlm_r1.errors import ResultError
from vlm_r1.report.results_table import ResultsTable
from vlm_r1.report.schema import GainLine, PooledLine, SetVerdict
from vlm_r1.report.wording import estimate, sign
from vlm_r1.stats.curves import mean_over_datasets
from vlm_r1.stats.intervals import Difference, holm


@dataclass(frozen=True)
class Overall:
    """Both methods at the last common step, on one out-of-domain dataset or the mean of several.

    Attributes:
        accuracy: method -> percent, the mean over datasets.
        difference: grpo minus sft, with p after Holm over `tests` tests.
        gain: grpo's gain since step 0 minus sft's, likewise; None without a step 0.
        gains: method -> points since step 0; empty without a step 0.
        grounding: as `gain` (`difference` without a step 0), with box coordinates corrected.
    """

    datasets: list[str]
    step: int
    confidence: float
    accuracy: dict[str, float]
    difference: Difference
    p_holm: float
    gain: Difference | None
    gain_p_holm: float | None
    gains: dict[str, float]
    grounding: Difference
    tests: int
    n: int
    n_images: int

    @property
    def raw_sign(self) -> int:
        """1 (grpo), -1 (sft) or 0: who is ahead as the checkpoints stand, after Holm."""
        return self._sign(self.difference, self.p_holm)

    @property
    def sign(self) -> int:
        """Who gained more, after Holm; without a step 0 who is ahead."""
        if self.gain is None or self.gain_p_holm is None:
            return self.raw_sign
        return self._sign(self.gain, self.gain_p_holm)

    def _sign(self, difference: Difference, p_holm: float) -> int:
        return sign(difference) if p_holm < 1 - self.confidence else 0

    @property
    def outcome(self) -> Literal["grpo", "sft", "open"]:
        """`sign` as report.json has it."""
        return "grpo" if self.sign > 0 else "sft" if self.sign < 0 else "open"


class Course(NamedTuple):
    """Both methods on the mean of `datasets` at every trained common step.

    `gains` is empty without a step 0. Where step 0 is the only common step, it is the only one.
    """

    datasets: list[str]
    steps: list[int]
    differences: list[Difference]
    gains: list[Difference]


def gain_lines(courses: Iterable[Course]) -> list[GainLine]:
    """The difference of gains at every trained common step of each course of one dataset."""
    return [
        GainLine(
            dataset=found.datasets[0],
            step=step,
            difference=gain.mean,
            ci_low=gain.low,
            ci_high=gain.high,
            p_value=gain.p_value,
            p_holm=p_holm,
        )
        for found in courses
        if found.gains
        for step, gain, p_holm in zip(
            found.steps, found.gains, *_holm_over([found.gains]), strict=True
        )
    ]


def pooled_lines(found: Course) -> list[PooledLine]:
    """The mean over several datasets at every trained common step; none for one dataset."""
    if len(found.datasets) < 2:
        return []
    (p_holm,), (gain_p_holm,) = _holm_over([found.differences]), _holm_over([found.gains])
    return [
        PooledLine(
            datasets=found.datasets,
            step=step,
            difference=estimate(found.differences[i]),
            p_holm=p_holm[i],
            gain=estimate(found.gains[i]) if found.gains else None,
            gain_p_holm=gain_p_holm[i] if found.gains else None,
        )
        for i, step in enumerate(found.steps)
    ]


def at_the_end(table: ResultsTable, courses: list[Course]) -> list[Overall]:
    """The last step of each course; p is adjusted for all steps of all of them."""
    p_holm = _holm_over([found.differences for found in courses])
    gain_p_holm = _holm_over([found.gains for found in courses])
    tests = sum(len(found.steps) for found in courses)
    return [
        _overall(table, found, tests, p[-1], gain_p[-1] if gain_p else None)
        for found, p, gain_p in zip(courses, p_holm, gain_p_holm, strict=True)
    ]


def set_verdict(found: Overall) -> SetVerdict:
    """`found` as report.json has it."""
    return SetVerdict(
        datasets=found.datasets,
        step=found.step,
        difference=estimate(found.difference),
        p_holm=found.p_holm,
        gain=None if found.gain is None else estimate(found.gain),
        gain_p_holm=found.gain_p_holm,
        outcome=found.outcome,
    )


def course(table: ResultsTable, datasets: list[str]) -> Course:
    """Differences and gains over `datasets`, each counting alike, at their trained common steps.

    Raises:
        ResultError: they have no common step.
    """
    common = set.intersection(*(set(table.common_steps(name)) for name in datasets))
    if not common:
        raise ResultError(
            got=f"{', '.join(datasets)}: no step at which both methods were evaluated on all",
            need="at least one common step",
            because="only equal amounts of training can be compared",
            do="evaluate both methods on one step grid",
        )
    steps = sorted(common - {0}) or [0]
    started = 0 in common and steps != [0]
    return Course(
        datasets,
        steps,
        [_mean(table, datasets, step, lambda m, d, s: table[m, d, s].hit) for step in steps],
        [_mean(table, datasets, step, table.gain) for step in steps if started],
    )


def _mean(
    table: ResultsTable,
    datasets: list[str],
    step: int,
    values: Callable[[str, str, int], np.ndarray],
) -> Difference:
    """grpo minus sft of `values` (method, dataset, step), the mean over datasets."""
    pairs = [
        (values("grpo", d, step), values("sft", d, step), table.first(d).scores.images)
        for d in datasets
    ]
    return mean_over_datasets(pairs, table.confidence)


def _holm_over(groups: list[list[Difference]]) -> list[list[float]]:
    """p of every difference, adjusted for those of all groups."""
    adjusted = iter(holm([one.p_value for group in groups for one in group]))
    return [list(itertools.islice(adjusted, len(group))) for group in groups]


def _overall(
    table: ResultsTable, found: Course, tests: int, p_holm: float, gain_p_holm: float | None
) -> Overall:
    last, images = found.steps[-1], [table.first(d).scores.images for d in found.datasets]
    accuracy: dict[str, float] = {m: _accuracy(table, m, found.datasets, last) for m in METHODS}
    start: dict[str, float] = {
        m: _accuracy(table, m, found.datasets, 0) for m in METHODS if found.gains
    }
    return Overall(
        datasets=found.datasets,
        step=last,
        confidence=table.confidence,
        accuracy=accuracy,
        difference=found.differences[-1],
        p_holm=p_holm,
        gain=found.gains[-1] if found.gains else None,
        gain_p_holm=gain_p_holm,
        gains={m: accuracy[m] - before for m, before in start.items()},
        grounding=_mean(table, found.datasets, last, _corrected(table, bool(found.gains))),
        tests=tests,
        n=sum(map(len, images)),
        n_images=len(set(np.concatenate(images))),
    )


def _corrected(table: ResultsTable, since_start: bool) -> Callable[[str, str, int], np.ndarray]:
    """Hits with box coordinates corrected, minus those of step 0 if `since_start`."""

    def values(method: str, dataset: str, step: int) -> np.ndarray:
        hits = 1.0 * table[method, dataset, step].correction.hit
        return hits - table[method, dataset, 0].correction.hit if since_start else hits

    return values


def _accuracy(table: ResultsTable, method: str, datasets: list[str], step: int) -> float:
    """Percent, the mean over datasets."""
    return float(np.mean([table[method, name, step].accuracy for name in datasets]))
