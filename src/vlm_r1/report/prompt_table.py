"""The prompt matrix on disk -> the report's block `prompts`."""

from pathlib import Path

from vlm_r1 import paths
from vlm_r1.config import METHODS, Params
from vlm_r1.evaluation.coordinate_space_check import WrittenBoxes, check_coordinate_space
from vlm_r1.evaluation.prompt_matrix_file import PromptCell, read_matrix
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.rec.results import read_results
from vlm_r1.report.schema import PromptLine
from vlm_r1.stats.intervals import interval


def prompt_lines(root: Path, params: Params, confidence: float) -> list[PromptLine]:
    """Every cell of reports/prompts, scored; empty if the matrix is turned off.

    Raises:
        ResultError: matrix.json or a result file that it names is missing or broken.
    """
    cells = read_matrix(root / paths.PROMPTS).cells
    return [_line(cell, root, params, confidence, tests=len(cells)) for cell in cells]


def _line(
    cell: PromptCell, root: Path, params: Params, confidence: float, tests: int
) -> PromptLine:
    file = paths.PROMPTS / cell.file
    result = read_results(root / file)
    scores = score_results(result)
    accuracy, low, high = interval(scores.hit, scores.images, confidence)
    boxes = WrittenBoxes.from_rows(result.results, scores.coordinate_space)
    best = check_coordinate_space(boxes, tests=tests).best
    own = cell.model in METHODS and getattr(params.task.prompts, cell.model) == cell.template
    return PromptLine(
        model=cell.model,
        step=cell.step,
        seed=cell.seed,
        template=cell.template,
        own=own,
        dataset=cell.dataset,
        n=scores.n,
        accuracy=accuracy,
        ci_low=low,
        ci_high=high,
        parse_rate=scores.parse_rate,
        best_space=None if best == scores.coordinate_space else best,
        file=file.as_posix(),
    )
