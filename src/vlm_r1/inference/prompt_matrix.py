"""Evaluates the prompt matrix: base and best checkpoint of each method x every prompt template.

Each cell is evaluated on the first in-domain and the first out-of-domain dataset. The checkpoints
are chosen on validation, not on these datasets. Completions go through the cache, so a model's own
prompt, which the stage `evaluate` has run already, costs nothing.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from accelerate import PartialState

from vlm_r1.config import Params
from vlm_r1.evaluation.prompt_matrix_file import PromptCell
from vlm_r1.evaluation.selection import select
from vlm_r1.experiment import checkpoint_path, contract_of
from vlm_r1.inference.cache import CompletionStore
from vlm_r1.inference.checkpoint import Checkpoint
from vlm_r1.inference.evaluator import EvalSet, make_eval_set
from vlm_r1.inference.result import build_result
from vlm_r1.models.loading import require_whole_checkpoint
from vlm_r1.rec.contract import Contract, evaluation_contract
from vlm_r1.rec.prompts import TEMPLATES
from vlm_r1.rec.results import ResultFile, write_results

logger = logging.getLogger(__name__)

ModelName = Literal["base", "sft", "grpo"]


def evaluate_prompt_matrix(params: Params, root: Path, folder: Path) -> list[PromptCell]:
    """Evaluate every model with every template; writes each cell's result file into `folder`.

    Raises:
        ResultError: a validation result is missing or broken.
        ModelError: a checkpoint is missing or broken.
        ContractError: a checkpoint was trained under another contract.
    """
    contract = evaluation_contract(contract_of(params, root), params)
    steps = _steps(params, root)
    checkpoints = {m: checkpoint_path(params, root, m, s, contract) for m, s in steps.items()}
    for path in checkpoints.values():
        require_whole_checkpoint(path)
    eval_sets = _eval_sets(params, root)
    distributed = PartialState(cpu=not torch.accelerator.is_available())
    scorer = _CellScorer(root, contract, params.task.coordinate_space, distributed)
    cells = []
    for model, path in checkpoints.items():
        checkpoint = Checkpoint(path, params.task, params.evaluate, distributed.device)
        for (template, dataset), eval_set in eval_sets.items():
            cell = PromptCell(
                model=model,
                step=steps[model],
                template=template,
                dataset=dataset,
                file=f"{dataset}/{model}-{template}.json",
            )
            write_results(folder / cell.file, scorer.result(cell, eval_set, checkpoint))
            cells.append(cell)
    distributed.destroy_process_group()
    return cells


def _steps(params: Params, root: Path) -> dict[ModelName, int]:
    """Model -> step of its best checkpoint; the base is step 0."""
    chosen = select(params, root)
    best = {choice.method: choice.step for choice in (chosen.champion, chosen.challenger)}
    return {"base": 0, "sft": best["sft"], "grpo": best["grpo"]}


def _eval_sets(params: Params, root: Path) -> dict[tuple[str, str], EvalSet]:
    """(template, dataset) -> eval set."""
    names = [params.names("id")[0], params.names("ood")[0]]
    return {
        (template, name): make_eval_set(root, name, params.datasets[name], template)
        for template in TEMPLATES
        for name in names
    }


@dataclass(frozen=True)
class _CellScorer:
    """Generates and scores one cell, under what all cells have in common."""

    root: Path
    contract: Contract
    coordinate_space: str
    distributed: PartialState

    def result(self, cell: PromptCell, eval_set: EvalSet, checkpoint: Checkpoint) -> ResultFile:
        key = checkpoint.completion_key(eval_set.questions_digest, self.contract)
        store = CompletionStore(self.root, key)
        label = f"{cell.model} step {cell.step}  {cell.dataset}, prompt {cell.template}"
        checkpoint.generate_missing(store, eval_set.questions, label, self.distributed)
        meta = {
            "model": cell.model,
            "step": cell.step,
            "template": cell.template,
            "checkpoint_digest": checkpoint.digest,
            "contract": self.contract.model_dump(),
            **eval_set.meta,
        }
        completions = store.read_all(len(eval_set.questions))
        result = build_result(eval_set.records, completions, self.coordinate_space, meta)
        logger.info("%s  accuracy %.1f %%", label, result.accuracy)
        return result
