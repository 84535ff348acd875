"""The prompt matrix -> the report's block `common_prompts`: both methods under the same prompt.

The base is one model, so under a common prompt both methods start at the same accuracy, and the
difference of accuracies is the difference of gains.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vlm_r1 import paths
from vlm_r1.config import METHODS, Params
from vlm_r1.errors import ResultError
from vlm_r1.evaluation.pairing import keys_of, pair_rows
from vlm_r1.evaluation.prompt_matrix_file import PromptCell, read_matrix
from vlm_r1.evaluation.scores import Scores
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.rec.results import ResultFile, read_results
from vlm_r1.report.render.labels import TEMPLATE_LABELS
from vlm_r1.report.schema import CommonPromptLine, CommonPrompts
from vlm_r1.report.wording import estimate, p_text, points
from vlm_r1.stats.intervals import holm, paired_difference

Read = tuple[ResultFile, Scores]


def common_prompts(root: Path, params: Params, confidence: float) -> CommonPrompts:
    """grpo minus sft at the last common step under every prompt; no lines without the matrix.

    Raises:
        ResultError: matrix.json or a result file that it names is missing or broken.
    """
    last = params.train.steps
    cells = [c for c in read_matrix(root / paths.PROMPTS).cells if c.step == last]
    groups: dict[tuple[str, str], dict[str, list[PromptCell]]] = {}
    for cell in cells:
        if cell.model in METHODS:
            by_method = groups.setdefault((cell.dataset, cell.template), {})
            by_method.setdefault(cell.model, []).append(cell)
    lines = [_line(root, methods, confidence) for methods in groups.values()]
    lines = _adjusted(lines)
    return CommonPrompts(lines=lines, sentence=_sentence(lines, params.names("ood")))


def _line(
    root: Path, methods: Mapping[str, list[PromptCell]], confidence: float
) -> CommonPromptLine:
    cell = methods["grpo"][0]
    _require_both(cell, methods)
    files = {m: [_read(root, c) for c in _by_seed(methods[m])] for m in METHODS}
    reference = files["grpo"][0]
    hits = {m: np.stack([_hits(reference, one) for one in runs]) for m, runs in files.items()}
    hits = {m: found if len(found) > 1 else found[0] for m, found in hits.items()}
    images = reference[1].images
    return CommonPromptLine(
        dataset=cell.dataset,
        step=cell.step,
        template=cell.template,
        n=reference[1].n,
        sft=100 * float(hits["sft"].mean()),
        grpo=100 * float(hits["grpo"].mean()),
        difference=estimate(paired_difference(hits["grpo"], hits["sft"], images, confidence)),
        p_holm=1.0,
    )


def _read(root: Path, cell: PromptCell) -> Read:
    result = read_results(root / paths.PROMPTS / cell.file)
    return result, score_results(result)


def _hits(reference: Read, other: Read) -> np.ndarray:
    """Hits (n,) in the row order of `reference`."""
    pairs = pair_rows(
        keys_of(reference[0].results), keys_of(other[0].results), ("one prompt", "another")
    )
    return other[1].take(pairs.b).hit


def _by_seed(cells: Sequence[PromptCell]) -> list[PromptCell]:
    return sorted(cells, key=lambda cell: -1 if cell.seed is None else cell.seed)


def _require_both(cell: PromptCell, methods: Mapping[str, list[PromptCell]]) -> None:
    counts = {m: len(methods.get(m, [])) for m in METHODS}
    if len(set(counts.values())) > 1:
        raise ResultError(
            got=f"prompt {cell.template} on {cell.dataset} at step {cell.step}: {counts} runs",
            need="as many training runs of both methods",
            because="both methods are compared under each prompt",
            do="`dvc repro prompts`",
        )


def _adjusted(lines: list[CommonPromptLine]) -> list[CommonPromptLine]:
    """The lines with p adjusted for the prompts of one dataset (Holm)."""
    adjusted = []
    for dataset in dict.fromkeys(line.dataset for line in lines):
        same = [line for line in lines if line.dataset == dataset]
        p_values = holm([line.difference.p_value for line in same])
        adjusted += [
            line.model_copy(update={"p_holm": p}) for line, p in zip(same, p_values, strict=True)
        ]
    return adjusted


def _sentence(lines: list[CommonPromptLine], ood: Sequence[str]) -> str | None:
    """The lines out of domain in words; None without any."""
    parts = [
        f"on {dataset} "
        + "; ".join(
            f"{TEMPLATE_LABELS.get(line.template, line.template)} "
            f"{points(line.difference.points)} points ({points(line.difference.ci_low)} to "
            f"{points(line.difference.ci_high)}, {p_text(line.difference.p_value)}, "
            f"{p_text(line.p_holm)} after Holm)"
            for line in lines
            if line.dataset == dataset
        )
        for dataset in ood
        if any(line.dataset == dataset for line in lines)
    ]
    if not parts:
        return None
    return (
        f"Asked with the same prompt, at step {lines[0].step}, GRPO minus SFT is "
        f"{', and '.join(parts)}. Under a common prompt both start from one base, so this is the "
        "difference of gains too."
    )
