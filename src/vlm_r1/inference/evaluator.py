"""Evaluates checkpoints of one training run: asks what the cache lacks, scores the answers.

Under `torchrun` the processes share the batches.
"""

import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import PartialState

from vlm_r1 import paths
from vlm_r1.config import Params
from vlm_r1.data.records import read_records, records_digest
from vlm_r1.evaluation.coordinate_space_check import check_rows, require_coordinate_space
from vlm_r1.experiment import contract_of
from vlm_r1.inference.cache import CompletionStore
from vlm_r1.inference.checkpoint import Checkpoint
from vlm_r1.inference.questions import Question, question_about, questions_digest
from vlm_r1.inference.result import build_result
from vlm_r1.rec.contract import Contract, evaluation_contract
from vlm_r1.rec.results import ResultFile

logger = logging.getLogger(__name__)

SLOWEST_SHARE = timedelta(days=1)  # how long processes wait for each other; 10 minutes by default


@dataclass(frozen=True)
class EvalSet:
    """A dataset as it is asked with one template; `meta` is what results say of it."""

    name: str
    records: pd.DataFrame
    questions: list[Question]
    questions_digest: str
    meta: dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """What all checkpoints of a training run are asked, under which contract, by how many."""

    params: Params
    root: Path
    method: str
    contract: Contract
    eval_sets: list[EvalSet]
    share: PartialState
    device: torch.device

    @property
    def run(self) -> str:
        """The training run's name, that of its folders."""
        return self.params.run_name(self.method, self.contract.seed)

    def results(self, step: int, checkpoint: str | Path) -> list[tuple[EvalSet, ResultFile]]:
        """One checkpoint's results; asks what the cache lacks, with the other processes.

        Raises:
            ModelError: the checkpoint cannot be used.
            ResultError: boxes score significantly better in another coordinate space than in the
                task's.
        """
        started = time.monotonic()
        checkpoint = Checkpoint(checkpoint, self.params, self.device)
        label = f"{self.run} step {step}"
        stores = {}
        for eval_set in self.eval_sets:
            key = checkpoint.key(eval_set.questions_digest, self.contract)
            stores[eval_set.name] = CompletionStore(self.root, key)
            checkpoint.complete(
                stores[eval_set.name], eval_set.questions, f"{label}  {eval_set.name}", self.share
            )
        self.share.wait_for_everyone()
        unit = {"method": self.method, "step": step, "contract": self.contract.model_dump()}
        unit["checkpoint_digest"] = checkpoint.digest
        results = []
        for eval_set in self.eval_sets:
            completions = stores[eval_set.name].read_all(len(eval_set.questions))
            meta = {**unit, **eval_set.meta}
            result = build_result(
                eval_set.records, completions, self.params.task.coordinate_space, meta
            )
            self._require_coordinate_space(paths.result_file(self.run, eval_set.name, step), result)
            results.append((eval_set, result))
        self._tell(label, results, time.monotonic() - started)
        return results

    def _require_coordinate_space(self, file: Path, result: ResultFile) -> None:
        units = len(self.eval_sets) * len(self.params.train.step_grid)
        finding = check_rows(result.results, self.params.task.coordinate_space, tests=units)
        require_coordinate_space(finding, file.as_posix())

    def _tell(self, label: str, results: list[tuple[EvalSet, ResultFile]], seconds: float) -> None:
        if self.share.is_main_process:
            shown = "  ".join(
                f"{eval_set.name} {result.accuracy:.1f} %" for eval_set, result in results
            )
            logger.info("%s  accuracy: %s  (%.1f s)", label, shown, seconds)


def begin(
    params: Params, root: Path, method: str, device: str | None = None, seed: int | None = None
) -> Evaluation:
    """Read what will be asked; `device` as torch names it, by default this process's own.

    Raises:
        ConfigError: the experiment has no such seed.
    """
    contract = evaluation_contract(contract_of(params.with_seed(seed), root), params)
    template = getattr(params.task.prompts, method)
    eval_sets = [make_eval_set(params, root, template, name) for name in params.evaluated_datasets]
    # accelerate shares work between CPU processes only if told that the CPU is meant
    share = PartialState(cpu=not torch.accelerator.is_available(), timeout=SLOWEST_SHARE)
    own = share.device if device is None else torch.device(device)
    return Evaluation(params, root, method, contract, eval_sets, share, own)


def make_eval_set(params: Params, root: Path, template: str, name: str) -> EvalSet:
    """The dataset `name` as a model is asked it with a template of `prompts.TEMPLATES`.

    Raises:
        DataError: its records or an image are missing.
    """
    dataset = params.datasets[name]
    records = read_records(root / paths.records_file(name))
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
    return EvalSet(name, records, questions, questions_digest(questions), meta)
