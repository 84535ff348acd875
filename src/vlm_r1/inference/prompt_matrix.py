"""The cells of the prompt matrix: the base and the best checkpoint of each method, each asked with
every template of `prompts.TEMPLATES`, on the first dataset in and the first out of domain.

Checkpoints are chosen on validation, never on what is asked here. Completions go through the cache,
so a model's own prompt, which the stage `evaluate` asked already, costs nothing.
"""

import logging
from pathlib import Path

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


def ask_all(params: Params, root: Path, folder: Path) -> list[PromptCell]:
    """Ask every model with every template; writes each cell's result file into `folder`.

    Raises:
        ResultError: a validation result is missing or broken.
        ModelError: a checkpoint is missing or broken.
        ContractError: a checkpoint was trained under other terms.
    """
    contract = evaluation_contract(contract_of(params, root), params)
    steps = _steps(params, root)
    folders = {m: checkpoint_path(params, root, m, s, contract) for m, s in steps.items()}
    for checkpoint in folders.values():
        require_whole_checkpoint(checkpoint)
    datasets = [params.names(role)[0] for role in ("id", "ood")]
    eval_sets = {
        (t, name): make_eval_set(params, root, t, name) for t in TEMPLATES for name in datasets
    }
    share = PartialState(cpu=not torch.accelerator.is_available())
    cells = []
    for model, checkpoint in folders.items():
        checkpoint = Checkpoint(checkpoint, params, share.device)
        for (template, dataset), eval_set in eval_sets.items():
            cell = PromptCell(
                model=model,
                step=steps[model],
                template=template,
                dataset=dataset,
                file=f"{dataset}/{model}-{template}.json",
            )
            result = _ask(params, root, cell, eval_set, checkpoint, contract, share)
            write_results(folder / cell.file, result)
            cells.append(cell)
    share.destroy_process_group()
    return cells


def _steps(params: Params, root: Path) -> dict[str, int]:
    """Model -> step of the checkpoint to ask; the base is step 0."""
    chosen = select(params, root)
    best = {choice.method: choice.step for choice in (chosen.champion, chosen.challenger)}
    return {"base": 0, "sft": best["sft"], "grpo": best["grpo"]}


def _ask(
    params: Params,
    root: Path,
    cell: PromptCell,
    eval_set: EvalSet,
    checkpoint: Checkpoint,
    contract: Contract,
    share: PartialState,
) -> ResultFile:
    store = CompletionStore(root, checkpoint.key(eval_set.questions_digest, contract))
    label = f"{cell.model} step {cell.step}  {cell.dataset}, prompt {cell.template}"
    checkpoint.complete(store, eval_set.questions, label, share)
    meta = {
        "model": cell.model,
        "step": cell.step,
        "template": cell.template,
        "checkpoint_digest": checkpoint.digest,
        "contract": contract.model_dump(),
        **eval_set.meta,
    }
    completions = store.read_all(len(eval_set.questions))
    result = build_result(eval_set.records, completions, params.task.coordinate_space, meta)
    logger.info("%s  accuracy %.1f %%", label, result.accuracy)
    return result
