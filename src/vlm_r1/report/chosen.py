"""Table of results -> the checkpoints that validation chose, compared with each other."""

import numpy as np

from vlm_r1.config import METHODS
from vlm_r1.evaluation.selection import LeakingChoice, ValidationScore, leaking_choice, pooled_score
from vlm_r1.report.results_table import TESTED, ResultsTable
from vlm_r1.report.schema import ChosenLine, SelectionLine
from vlm_r1.report.wording import estimate
from vlm_r1.stats.intervals import paired_difference


def selection_lines(table: ResultsTable) -> list[SelectionLine]:
    """The bias of choosing checkpoints on each test set; empty without validation results.

    Every training run chooses among its own checkpoints.

    Raises:
        ResultError: a checkpoint was evaluated on a test set but not on validation, or vice versa.
    """
    if not table.datasets("validation"):
        return []
    return [
        _selection_line(table, method, dataset, run)
        for dataset in table.datasets(*TESTED)
        for method in METHODS
        for run in range(len(table.seeds))
    ]


def chosen_lines(table: ResultsTable, selection: list[SelectionLine]) -> list[ChosenLine]:
    """grpo minus sft at the chosen checkpoints of `selection`, on every tested dataset."""
    steps = {
        (dataset, method): [
            line.chosen_step
            for line in selection
            if (line.dataset, line.method) == (dataset, method)
        ]
        for dataset in table.datasets(*TESTED)
        for method in METHODS
    }
    return [
        _chosen_line(table, dataset, {m: steps[dataset, m] for m in METHODS})
        for dataset in dict.fromkeys(line.dataset for line in selection)
    ]


def _selection_line(table: ResultsTable, method: str, dataset: str, run: int) -> SelectionLine:
    steps = [step for step in table.steps(method, dataset) if step > 0]
    found: LeakingChoice = leaking_choice(
        _validation_scores(table, method, run),
        {step: table[method, dataset, step].results[run].scores.hit for step in steps},
    )
    return SelectionLine(
        method=method,
        seed=table.seeds[run],
        dataset=dataset,
        overclaim=found.overclaim,
        **found._asdict(),
    )


def _validation_scores(table: ResultsTable, method: str, run: int) -> dict[int, ValidationScore]:
    """Score of every checkpoint of a run over all validation records, as `register` computes it."""
    names = table.datasets("validation")
    steps = set.intersection(*(set(table.steps(method, name)) for name in names)) - {0}
    return {
        step: pooled_score([table[method, name, step].results[run].scores for name in names])
        for step in sorted(steps)
    }


def _chosen_line(table: ResultsTable, dataset: str, steps: dict[str, list[int]]) -> ChosenLine:
    hits = {m: _of_runs(table, m, dataset, steps[m]) for m in METHODS}
    images = table.first(dataset).scores.images
    gain = None
    if all((m, dataset, 0) in table for m in METHODS):
        starts = {m: _of_runs(table, m, dataset, [0] * len(steps[m])) for m in METHODS}
        gained = {m: 1.0 * hits[m] - starts[m] for m in METHODS}
        gain = paired_difference(gained["grpo"], gained["sft"], images, table.confidence)
    difference = paired_difference(hits["grpo"], hits["sft"], images, table.confidence)
    return ChosenLine(
        dataset=dataset,
        grpo_steps=steps["grpo"],
        sft_steps=steps["sft"],
        grpo_accuracy=100 * float(hits["grpo"].mean()),
        sft_accuracy=100 * float(hits["sft"].mean()),
        difference=estimate(difference),
        gain=None if gain is None else estimate(gain),
    )


def _of_runs(table: ResultsTable, method: str, dataset: str, steps: list[int]) -> np.ndarray:
    """(runs, n): each run's hits at its own step."""
    return np.stack(
        [table[method, dataset, step].results[run].scores.hit for run, step in enumerate(steps)]
    )
