"""Evaluates the prompt matrix: models x every prompt template.

The models are the base, the best checkpoint of each method, chosen on validation, and every
training run's checkpoint of the last step that both methods have: the two methods under one prompt.
Each cell is evaluated on the first in-domain and on every out-of-domain dataset. Completions go
through the cache, so a model's own prompt, which the stage `evaluate` has run already, costs
nothing. With vLLM the stage `evaluate` has checked that it agrees with transformers.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from accelerate import PartialState

from vlm_r1.config import METHODS, Params
from vlm_r1.evaluation.prompt_matrix_file import PromptCell
from vlm_r1.evaluation.selection import select
from vlm_r1.experiment import checkpoint_path, contract_of
from vlm_r1.inference.cache import CompletionStore
from vlm_r1.inference.checkpoint import Checkpoint
from vlm_r1.inference.engines.base import Host
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
    models = _models(params, root)
    contracts = {
        seed: evaluation_contract(contract_of(params.with_seed(seed), root), params)
        for seed in params.all_seeds
    }
    checkpoints = {
        model: checkpoint_path(params, root, model.run, model.step, contracts[model.contract_seed])
        for model in models
    }
    for path in checkpoints.values():
        require_whole_checkpoint(path)
    eval_sets = _eval_sets(params, root)
    distributed = PartialState(cpu=not torch.accelerator.is_available())
    cells = []
    for model, path in checkpoints.items():
        contract = contracts[model.contract_seed]
        scorer = _CellScorer(root, contract, params.task.coordinate_space)
        with Checkpoint(path, params, Host(root, distributed, distributed.device)) as checkpoint:
            for (template, dataset), eval_set in eval_sets.items():
                cell = model.cell(template, dataset)
                write_results(folder / cell.file, scorer.result(cell, eval_set, checkpoint))
                cells.append(cell)
    distributed.destroy_process_group()
    return cells


@dataclass(frozen=True)
class _Model:
    """A checkpoint to ask: `run` names its folder, `seed` is None for the base."""

    name: ModelName
    run: str
    step: int
    seed: int | None
    contract_seed: int  # the base's terms are those of the first run

    def cell(self, template: str, dataset: str) -> PromptCell:
        return PromptCell(
            model=self.name,
            step=self.step,
            seed=self.seed,
            template=template,
            dataset=dataset,
            file=f"{dataset}/{self.run}-{self.step}-{template}.json",
        )


def _models(params: Params, root: Path) -> list[_Model]:
    """The base; then by method the best checkpoint and those of the last step, each once."""
    first, chosen = params.experiment.seed, select(params, root)
    best = {choice.method: choice.step for choice in (chosen.champion, chosen.challenger)}
    models = [_Model("base", "base", 0, None, first)]
    for method in METHODS:
        asked = [(first, best[method]), *((seed, params.train.steps) for seed in params.all_seeds)]
        models += [
            _Model(method, params.run_name(method, seed), step, seed, seed)
            for seed, step in dict.fromkeys(asked)
        ]
    return models


def _eval_sets(params: Params, root: Path) -> dict[tuple[str, str], EvalSet]:
    """(template, dataset) -> eval set."""
    names = [params.names("id")[0], *params.names("ood")]
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

    def result(self, cell: PromptCell, eval_set: EvalSet, checkpoint: Checkpoint) -> ResultFile:
        key = checkpoint.completion_key(eval_set.questions_digest, self.contract)
        store = CompletionStore(self.root, key)
        label = f"{cell.model} step {cell.step}  {cell.dataset}, prompt {cell.template}"
        checkpoint.generate_missing(store, eval_set.questions, label)
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
