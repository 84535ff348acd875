"""Stage `evaluate`: every checkpoint of a method on every dataset -> results/<method>."""

import logging
import time
from pathlib import Path

import pandas as pd

from vlm_r1 import paths, tracking
from vlm_r1.config import Params
from vlm_r1.contract import Contract, TrainingContract, evaluation_contract, require_equal
from vlm_r1.data.records import read_records, records_digest
from vlm_r1.errors import ModelError
from vlm_r1.evaluation.generation import ask_all, question_about
from vlm_r1.evaluation.unit import build_result
from vlm_r1.folders import whole_folder
from vlm_r1.models.digest import checkpoint_digest
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.results import write_results
from vlm_r1.stages.terms import base_path, contract_of

logger = logging.getLogger(__name__)


def run(params: Params, root: Path, method: str) -> None:
    """Evaluate step 0 (the base, under the method's prompt) and every checkpoint of `method`."""
    contract = evaluation_contract(contract_of(params, root), params)
    tables = {
        name: read_records(root / paths.records_file(name)) for name in params.evaluated_datasets
    }
    with whole_folder(root / paths.RESULTS / method) as output:
        for step in params.train.step_grid:
            checkpoint = checkpoint_path(params, root, method, step, contract)
            _evaluate_checkpoint(params, root, method, step, checkpoint, tables, contract, output)
    tracking.track_evaluation(root, params, method)


def checkpoint_path(
    params: Params, root: Path, method: str, step: int, contract: Contract
) -> str | Path:
    """The folder of a step's checkpoint, whose contract must be the one in force.

    Raises:
        ModelError: the folder or its contract is missing.
        ContractError: it was trained under other terms.
    """
    if step == 0:
        return base_path(params, root)
    folder = root / paths.checkpoint_dir(method, step)
    file = folder / "contract.json"
    if not file.exists():
        raise ModelError(
            got=f"{folder}: no contract.json",
            need="a checkpoint with the terms it was trained under",
            because="results without terms cannot be compared",
            do=f"train again (`dvc repro {method}`)",
        )
    trained = TrainingContract.model_validate_json(file.read_text(encoding="utf-8"))
    fields = TrainingContract.model_fields
    require_equal(
        {str(folder): trained.model_dump(), "params.yaml": contract.model_dump(include=set(fields))}
    )
    return folder


def _evaluate_checkpoint(
    params: Params,
    root: Path,
    method: str,
    step: int,
    checkpoint: str | Path,
    tables: dict[str, pd.DataFrame],
    contract: Contract,
    output: Path,
) -> None:
    model = load_model(checkpoint, params.task)
    processor = load_processor(checkpoint, params.task)
    digest = checkpoint_digest(checkpoint)
    for name, records in tables.items():
        started = time.monotonic()
        dataset = params.datasets[name]
        template = getattr(params.task.prompts, method)
        questions = [
            question_about(template, phrase, root / dataset.images / image)
            for phrase, image in zip(records["expression"], records["image"], strict=True)
        ]
        completions = ask_all(
            model, processor, questions, params.evaluate.batch_size, params.evaluate.max_new_tokens
        )
        meta = {
            "method": method,
            "dataset": name,
            "role": dataset.role,
            "step": step,
            "checkpoint_digest": digest,
            "records": len(records),
            "images": int(records["image"].nunique()),
            "records_digest": records_digest(records),
            "contract": contract.model_dump(),
        }
        result = build_result(records, completions, params.task.frame, meta)
        write_results(output / name / f"step-{step}.json", result)
        logger.info(
            "%s step %d  %s  accuracy %.1f %%  (%.1f s)",
            method, step, name, result.accuracy, time.monotonic() - started,
        )  # fmt: skip
