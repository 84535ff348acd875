"""Accuracy against what training had cost, and the methods compared at equal FLOPs.

At equal steps GRPO has done many times the work of SFT. Here both are compared where they have
done equal work: the hits of each row are interpolated linearly between the checkpoints before and
after, so the difference is a paired one with the usual interval over images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vlm_r1.config import METHODS, Method
from vlm_r1.report.results_table import TESTED, ResultsTable
from vlm_r1.report.schema import (
    CheckpointCost,
    Compute,
    ComputeMatch,
    ComputePoint,
    Cost,
    Estimate,
    NearestCheckpoints,
)
from vlm_r1.stats.interpolation import neighbor_weights
from vlm_r1.stats.intervals import Difference, holm, paired_difference

UNKNOWN = "the files do not tell what training had cost at each checkpoint"
BASE = CheckpointCost(step=0, seconds=0, tokens=0, flops=0)

Costs = Mapping[str, list[CheckpointCost]]  # method -> its checkpoints' costs, by step


def mean_cost(runs: list[Cost]) -> Cost:
    """What training took, and up to each checkpoint: the mean over one method's training runs."""
    numbers = ("prompts", "completions", "tokens")
    return Cost(
        method=runs[0].method,
        seconds=float(np.mean([run.seconds for run in runs])),
        flops=float(np.mean([run.flops for run in runs])),
        checkpoints=_checkpoint_costs(runs),
        **{name: round(float(np.mean([getattr(run, name) for run in runs]))) for name in numbers},
    )


def _checkpoint_costs(runs: list[Cost]) -> list[CheckpointCost]:
    return [
        CheckpointCost(
            step=same[0].step,
            seconds=float(np.mean([one.seconds for one in same])),
            tokens=round(float(np.mean([one.tokens for one in same]))),
            flops=float(np.mean([one.flops for one in same])),
        )
        for same in zip(*(run.checkpoints for run in runs), strict=True)
    ]


def compute_block(table: ResultsTable, costs: Costs) -> Compute:
    """The block `compute` of the report; without costs it is empty and says why."""
    if not all(costs.get(method) for method in METHODS):
        return Compute(points=[], matched=[], nearest=[], reason=UNKNOWN)
    curves = {
        name: {method: _curve(table, method, name, costs[method]) for method in METHODS}
        for name in table.datasets(*TESTED)
    }
    return Compute(
        points=[p for pair in curves.values() for c in pair.values() for p in c.points()],
        matched=[match for name, pair in curves.items() for match in _matches(name, pair)],
        nearest=[pair for name, both in curves.items() for pair in _nearest(name, both)],
    )


@dataclass(frozen=True)
class CostCurve:
    """One method on one dataset: its steps with a known cost, and the hits at each."""

    method: str
    dataset: str
    costs: list[CheckpointCost]
    hits: np.ndarray  # (steps, n), or (steps, seeds, n)
    images: np.ndarray  # (n,)
    confidence: float

    @property
    def flops(self) -> list[float]:
        """FLOPs at each step."""
        return [cost.flops for cost in self.costs]

    def at(self, flops: float) -> np.ndarray:
        """Each row's hits (0-1) after so many FLOPs, between two checkpoints."""
        hits: np.ndarray = np.tensordot(neighbor_weights(self.flops, flops), self.hits, axes=1)
        return hits

    def steps_around(self, flops: float) -> tuple[int, int]:
        """The steps between which `at` interpolates; one step twice where it need not."""
        used = np.flatnonzero(neighbor_weights(self.flops, flops))
        return self.costs[used[0]].step, self.costs[used[-1]].step

    def points(self) -> list[ComputePoint]:
        """Accuracy at every step with a known cost."""
        return [
            ComputePoint(
                method=self.method,
                dataset=self.dataset,
                accuracy=100 * float(hits.mean()),
                **cost.model_dump(),
            )
            for cost, hits in zip(self.costs, self.hits, strict=True)
        ]


class Pair(NamedTuple):
    """Both methods on one dataset."""

    sft: CostCurve
    grpo: CostCurve

    def difference(self, sft: np.ndarray, grpo: np.ndarray) -> Difference:
        """GRPO minus SFT on the same rows."""
        return paired_difference(grpo, sft, self.grpo.images, self.grpo.confidence)


def _curve(
    table: ResultsTable, method: str, dataset: str, costs: list[CheckpointCost]
) -> CostCurve:
    known = {cost.step: cost for cost in [BASE, *costs]}
    steps = [step for step in table.steps(method, dataset) if step in known]
    groups = [table[method, dataset, step] for step in steps]
    return CostCurve(
        method=method,
        dataset=dataset,
        costs=[known[step] for step in steps],
        hits=np.stack([group.hit for group in groups]).astype(float),
        images=groups[0].images,
        confidence=table.confidence,
    )


def _matches(dataset: str, curves: Mapping[Method, CostCurve]) -> list[ComputeMatch]:
    """GRPO minus SFT at the FLOPs of every checkpoint up to what both methods have spent."""
    pair = Pair(curves["sft"], curves["grpo"])
    if any(len(curve.costs) < 2 or curve.flops[0] > 0 for curve in pair):
        return []
    shared = min(curve.flops[-1] for curve in pair)
    budgets = sorted({f for curve in pair for f in curve.flops if 0 < f <= shared})
    raw = [pair.difference(*(curve.at(flops) for curve in pair)) for flops in budgets]
    gains = [
        pair.difference(*(curve.at(flops) - curve.hits[0] for curve in pair)) for flops in budgets
    ]
    adjusted = zip(holm([d.p_value for d in raw]), holm([g.p_value for g in gains]), strict=True)
    return [
        ComputeMatch(
            dataset=dataset,
            flops=flops,
            sft_steps=pair.sft.steps_around(flops),
            grpo_steps=pair.grpo.steps_around(flops),
            sft=100 * float(pair.sft.at(flops).mean()),
            grpo=100 * float(pair.grpo.at(flops).mean()),
            difference=_estimate(difference),
            difference_p_holm=difference_holm,
            gain=_estimate(gain),
            gain_p_holm=gain_holm,
        )
        for flops, difference, gain, (difference_holm, gain_holm) in zip(
            budgets, raw, gains, adjusted, strict=True
        )
    ]


def _nearest(dataset: str, curves: Mapping[Method, CostCurve]) -> list[NearestCheckpoints]:
    """Pairs of checkpoints, one of each method, of which neither has one that is nearer in FLOPs.

    Distance is the ratio: 1 to 2 is as far as 2 to 4. Step 0, which cost nothing, is left out.
    """
    pair = Pair(curves["sft"], curves["grpo"])
    sft, grpo = ([i for i, f in enumerate(curve.flops) if f > 0] for curve in pair)
    if not sft or not grpo:
        return []
    logs = np.log([[pair.grpo.flops[g] / pair.sft.flops[s] for g in grpo] for s in sft])
    distance = np.abs(logs)
    return [
        _checkpoints(dataset, pair, s, grpo[j])
        for i, s in enumerate(sft)
        if distance[:, (j := int(distance[i].argmin()))].argmin() == i
    ]


def _checkpoints(dataset: str, pair: Pair, sft: int, grpo: int) -> NearestCheckpoints:
    """GRPO's `grpo`-th checkpoint minus SFT's `sft`-th."""
    costs = pair.sft.costs[sft], pair.grpo.costs[grpo]
    hits = pair.sft.hits[sft], pair.grpo.hits[grpo]
    return NearestCheckpoints(
        dataset=dataset,
        sft_step=costs[0].step,
        grpo_step=costs[1].step,
        flops_ratio=costs[1].flops / costs[0].flops,
        seconds_ratio=costs[1].seconds / costs[0].seconds if costs[0].seconds else None,
        sft=100 * float(hits[0].mean()),
        grpo=100 * float(hits[1].mean()),
        difference=_estimate(pair.difference(*hits)),
    )


def _estimate(found: Difference) -> Estimate:
    return Estimate(points=found.mean, ci_low=found.low, ci_high=found.high, p_value=found.p_value)


def largest_budgets(compute: Compute) -> list[ComputeMatch]:
    """Per dataset the comparison at the most FLOPs that both methods have spent."""
    return list({match.dataset: match for match in compute.matched}.values())
