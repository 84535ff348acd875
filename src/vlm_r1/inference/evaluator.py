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
from vlm_r1.evaluation.frame_check import check_rows, require_frame
from vlm_r1.experiment import contract_of
from vlm_r1.inference.cache import CompletionStore
from vlm_r1.inference.checkpoint import Candidate
from vlm_r1.inference.questions import Question, question_about, questions_digest
from vlm_r1.inference.result import build_result
from vlm_r1.rec.contract import Contract, evaluation_contract
from vlm_r1.rec.results import ResultFile

logger = logging.getLogger(__name__)

SLOWEST_SHARE = timedelta(days=1)  # how long processes wait for each other; 10 minutes by default


@dataclass(frozen=True)
class Exam:
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
    exams: list[Exam]
    share: PartialState
    device: torch.device

    @property
    def run(self) -> str:
        """The training run's name, that of its folders."""
        return self.params.run_name(self.method, self.contract.seed)

    def results(self, step: int, checkpoint: str | Path) -> list[tuple[Exam, ResultFile]]:
        """One checkpoint's results; asks what the cache lacks, with the other processes.

        Raises:
            ModelError: the checkpoint cannot be used.
            ResultError: boxes score significantly better in another frame than in the task's.
        """
        started = time.monotonic()
        candidate = Candidate(checkpoint, self.params, self.device)
        label = f"{self.run} step {step}"
        stores = {}
        for exam in self.exams:
            key = candidate.key(exam.questions_digest, self.contract)
            stores[exam.name] = CompletionStore(self.root, key)
            candidate.complete(
                stores[exam.name], exam.questions, f"{label}  {exam.name}", self.share
            )
        self.share.wait_for_everyone()
        unit = {"method": self.method, "step": step, "contract": self.contract.model_dump()}
        unit["checkpoint_digest"] = candidate.digest
        results = []
        for exam in self.exams:
            completions = stores[exam.name].read_all(len(exam.questions))
            meta = {**unit, **exam.meta}
            result = build_result(exam.records, completions, self.params.task.frame, meta)
            self._require_frame(paths.result_file(self.run, exam.name, step), result)
            results.append((exam, result))
        self._tell(label, results, time.monotonic() - started)
        return results

    def _require_frame(self, file: Path, result: ResultFile) -> None:
        units = len(self.exams) * len(self.params.train.step_grid)
        finding = check_rows(result.results, self.params.task.frame, tests=units)
        require_frame(finding, file.as_posix())

    def _tell(self, label: str, results: list[tuple[Exam, ResultFile]], seconds: float) -> None:
        if self.share.is_main_process:
            shown = "  ".join(f"{exam.name} {result.accuracy:.1f} %" for exam, result in results)
            logger.info("%s  accuracy: %s  (%.1f s)", label, shown, seconds)


def begin(
    params: Params, root: Path, method: str, device: str | None = None, seed: int | None = None
) -> Evaluation:
    """Read what will be asked; `device` as torch names it, by default this process's own.

    Raises:
        ConfigError: the experiment has no such seed.
    """
    contract = evaluation_contract(contract_of(params.sown(seed), root), params)
    template = getattr(params.task.prompts, method)
    exams = [exam_with(params, root, template, name) for name in params.evaluated_datasets]
    # accelerate shares work between CPU processes only if told that the CPU is meant
    share = PartialState(cpu=not torch.accelerator.is_available(), timeout=SLOWEST_SHARE)
    own = share.device if device is None else torch.device(device)
    return Evaluation(params, root, method, contract, exams, share, own)


def exam_with(params: Params, root: Path, template: str, name: str) -> Exam:
    """The dataset `name` as a model is asked it with a template of `prompts.TEMPLATES`.

    Raises:
        DataError: its records or a picture are missing.
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
    return Exam(name, records, questions, questions_digest(questions), meta)
