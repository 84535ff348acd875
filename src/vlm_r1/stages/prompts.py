"""Stage `prompts`: how much accuracy depends on the prompt -> reports/prompts.

Unless `report.prompt_matrix` is set it writes an empty matrix and loads no model.
"""

from pathlib import Path

from vlm_r1 import paths
from vlm_r1.config import Params
from vlm_r1.evaluation.prompt_matrix_file import PromptMatrix
from vlm_r1.files import whole_folder


def run(params: Params, root: Path) -> None:
    """Write matrix.json and a result file for each of its cells (checkpoint, prompt).

    Raises:
        ResultError: a validation result is missing or broken.
        ModelError: a checkpoint is missing or broken.
        ContractError: a checkpoint was trained under another contract.
    """
    with whole_folder(root / paths.PROMPTS) as folder:
        cells = []
        if params.report.prompt_matrix:
            # Imported here because it loads torch, which a stage that is off should not pay for.
            from vlm_r1.inference.prompt_matrix import evaluate_prompt_matrix

            cells = evaluate_prompt_matrix(params, root, folder)
        PromptMatrix(cells=cells).write(folder)
