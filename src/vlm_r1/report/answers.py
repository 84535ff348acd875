"""Table of results -> the report's block `answers`: lengths, cut-offs, answers without a box."""

import numpy as np
import pandas as pd

from vlm_r1.config import METHODS
from vlm_r1.report.results_table import TESTED, ResultsTable, SeedGroup
from vlm_r1.report.schema import AnswerLine, Answers, CutOffLine, Lengths
from vlm_r1.report.wording import NAMES, estimate, p_text, points
from vlm_r1.stats.intervals import holm, paired_difference

THOUGHT = "<think>"


def answers_block(table: ResultsTable) -> Answers:
    """What the answers of both methods look like, on every tested dataset at every step."""
    tested = table.datasets(*TESTED)
    lines = [
        _line(table[method, dataset, step])
        for dataset in tested
        for method in METHODS
        for step in table.steps(method, dataset)
    ]
    cut_offs = [line for dataset in tested for line in _cut_offs(table, dataset)]
    return Answers(lines=lines, cut_offs=cut_offs, warnings=_warnings(cut_offs, table.confidence))


def _line(group: SeedGroup) -> AnswerLine:
    completions = [text for result in group.results for text in result.rows.completion]
    thought = np.array([THOUGHT in text for text in completions])
    boxes = np.concatenate([result.scores.boxes for result in group.results])
    no_box = np.isnan(boxes).any(axis=1)
    tokens = np.concatenate([result.rows.new_tokens for result in group.results]).astype(float)
    cut_off = _stacked(group, "cut_off")
    return AnswerLine(
        method=group.method,
        dataset=group.dataset,
        step=group.step,
        n=len(completions),
        tokens=_lengths(tokens),
        characters=_lengths(np.array([len(text) for text in completions], dtype=float)),
        cut_off=None if cut_off is None else 100 * float(cut_off.mean()),
        thought=100 * float(thought.mean()),
        no_box=100 * float(no_box.mean()),
        thought_without_box=100 * float((thought & no_box).mean()),
    )


def _lengths(values: np.ndarray) -> Lengths | None:
    """None if a row's length is unknown."""
    if np.isnan(values).any():
        return None
    middle, most = np.percentile(values, [50, 95])
    return Lengths(
        mean=float(values.mean()), median=float(middle), p95=float(most), longest=int(values.max())
    )


def _stacked(group: SeedGroup, column: str) -> np.ndarray | None:
    """A column of the rows as (n,), or (runs, n) for several; None if a row lacks it."""
    found = np.stack([getattr(result.rows, column) for result in group.results]).astype(float)
    if pd.isna(found).any():
        return None
    return found if len(found) > 1 else found[0]


def _cut_offs(table: ResultsTable, dataset: str) -> list[CutOffLine]:
    """Share of answers cut off, grpo minus sft, at every common step; p by Holm over the steps."""
    found = []
    for step in table.common_steps(dataset):
        grpo, sft = (_stacked(table[m, dataset, step], "cut_off") for m in ("grpo", "sft"))
        if grpo is not None and sft is not None:
            images = table["sft", dataset, step].images
            found.append((step, grpo, sft, paired_difference(grpo, sft, images, table.confidence)))
    adjusted = holm([difference.p_value for *_, difference in found])
    return [
        CutOffLine(
            dataset=dataset,
            step=step,
            grpo=100 * float(grpo.mean()),
            sft=100 * float(sft.mean()),
            difference=estimate(difference),
            p_holm=p_holm,
        )
        for (step, grpo, sft, difference), p_holm in zip(found, adjusted, strict=True)
    ]


def _warnings(cut_offs: list[CutOffLine], confidence: float) -> list[str]:
    """A sentence for every dataset and step at which the difference is significant after Holm."""
    return [
        f"On {line.dataset} at step {line.step} the token limit cuts off {line.grpo:.1f} % of "
        f"GRPO's answers and {line.sft:.1f} % of {NAMES['sft']}'s "
        f"({points(line.difference.points)} points, {p_text(line.p_holm)} after Holm): an answer "
        "that is cut off before its box counts as wrong, so this difference is one of lengths too. "
        "Raise evaluate.max_new_tokens."
        for line in cut_offs
        if line.p_holm < 1 - confidence
    ]
