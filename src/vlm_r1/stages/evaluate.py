"""Stage `evaluate`: every checkpoint of a method on every dataset -> results/<method>."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vlm_r1 import paths, tracking
from vlm_r1.config import Params
from vlm_r1.contract import (
    Contract,
    TrainingContract,
    evaluation_contract,
    read_terms,
    require_equal,
)
from vlm_r1.data.records import read_records, records_digest
from vlm_r1.evaluation.frames import check_rows, require_frame
from vlm_r1.evaluation.generation import Question, ask_all, question_about
from vlm_r1.evaluation.unit import build_result
from vlm_r1.folders import whole_folder
from vlm_r1.models.digest import checkpoint_digest
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.results import write_results
from vlm_r1.stages.terms import base_path, contract_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exam:
    """A dataset as every checkpoint of one method is asked it; `meta` is what results say of it."""

    name: str
    records: pd.DataFrame
    questions: list[Question]
    meta: dict[str, Any]


def run(params: Params, root: Path, method: str) -> None:
    """Evaluate step 0 (the base, under the method's prompt) and every checkpoint of `method`.

    Raises:
        ResultError: boxes score significantly better in another frame than in the task's.
    """
    contract = evaluation_contract(contract_of(params, root), params)
    exams = [_exam(params, root, method, name) for name in params.evaluated_datasets]
    with whole_folder(root / paths.RESULTS / method) as output:
        for step in params.train.step_grid:
            checkpoint = checkpoint_path(params, root, method, step, contract)
            unit = {"method": method, "step": step, "contract": contract.model_dump()}
            _evaluate_checkpoint(params, checkpoint, exams, unit, output)
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
    folder = paths.checkpoint_dir(method, step)
    in_force = contract.model_dump(include=set(TrainingContract.model_fields))
    require_equal({str(folder): read_terms(root, folder), "params.yaml": in_force})
    return root / folder


def _exam(params: Params, root: Path, method: str, name: str) -> Exam:
    dataset = params.datasets[name]
    records = read_records(root / paths.records_file(name))
    template = getattr(params.task.prompts, method)
    questions = [
        question_about(template, phrase, root / dataset.images / image)
        for phrase, image in zip(records["expression"], records["image"], strict=True)
    ]
    meta = {
        "dataset": name,
        "role": dataset.role,
        "records": len(records),
        "images": int(records["image"].nunique()),
        "records_digest": records_digest(records),
    }
    return Exam(name, records, questions, meta)


def _evaluate_checkpoint(
    params: Params, checkpoint: str | Path, exams: list[Exam], unit: dict[str, Any], output: Path
) -> None:
    """Write a result file per exam; `unit` is what all of them say of the checkpoint.

    Raises:
        ResultError: the boxes of one score significantly better in another frame.
    """
    model = load_model(checkpoint, params.task)
    processor = load_processor(checkpoint, params.task)
    unit = {**unit, "checkpoint_digest": checkpoint_digest(checkpoint)}
    units = len(exams) * len(params.train.step_grid)
    limits = (params.evaluate.batch_size, params.evaluate.max_new_tokens)
    for exam in exams:
        started = time.monotonic()
        completions = ask_all(model, processor, exam.questions, *limits)
        meta = {**unit, **exam.meta}
        result = build_result(exam.records, completions, params.task.frame, meta)
        file = paths.result_file(unit["method"], exam.name, unit["step"])
        require_frame(check_rows(result.results, params.task.frame, tests=units), str(file))
        write_results(output / exam.name / file.name, result)
        logger.info(
            "%s step %d  %s  accuracy %.1f %%  (%.1f s)",
            unit["method"], unit["step"], exam.name, result.accuracy, time.monotonic() - started,
        )  # fmt: skip
