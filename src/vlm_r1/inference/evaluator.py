"""Evaluates checkpoints of one training run: generates missing completions and scores all.

Under `torchrun` the processes share the batches.
"""

import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from accelerate import PartialState

from vlm_r1 import paths
from vlm_r1.config import Dataset, EngineName, Method, Params
from vlm_r1.data.records import detects, read_records, records_digest
from vlm_r1.evaluation.coordinate_space_check import (
    CoordinateSpaceCheck,
    WrittenBoxes,
    check_coordinate_space,
    require_coordinate_space,
)
from vlm_r1.experiment import base_path, contract_of
from vlm_r1.inference.agreement import Agreement, agreement_meta, require_agreement, spread
from vlm_r1.inference.cache import CompletionStore
from vlm_r1.inference.checkpoint import Checkpoint
from vlm_r1.inference.engines.base import Host
from vlm_r1.inference.engines.vllm_environment import require_vllm
from vlm_r1.inference.questions import Completion, Question, question_about, questions_digest
from vlm_r1.inference.result import build_result
from vlm_r1.inference.sampling import Sampling
from vlm_r1.rec.contract import Contract, evaluation_contract
from vlm_r1.rec.results import ResultFile

logger = logging.getLogger(__name__)

ENGINES: tuple[EngineName, ...] = ("transformers", "vllm")
# How long processes wait for each other at a barrier. The default of 10 minutes is less than the
# slowest process may take for its share of the batches.
BARRIER_TIMEOUT = timedelta(days=1)


@dataclass(frozen=True)
class EvalSet:
    """A dataset's records and their questions in one template; `meta` goes into its results."""

    name: str
    records: pd.DataFrame
    questions: list[Question]
    questions_digest: str
    meta: dict[str, Any]


class Evaluation(NamedTuple):
    """A checkpoint's result on one eval set, and whether its boxes are in the task's space."""

    eval_set: EvalSet
    result: ResultFile
    check: CoordinateSpaceCheck


@dataclass(frozen=True)
class Evaluator:
    """The eval sets, the contract and the processes that all checkpoints of a run share."""

    params: Params
    root: Path
    method: Method
    contract: Contract
    eval_sets: list[EvalSet]
    distributed: PartialState
    device: torch.device

    @property
    def run(self) -> str:
        """The training run's name, as in its folders."""
        return self.params.run_name(self.method, self.contract.seed)

    @property
    def host(self) -> Host:
        """Where engines run."""
        return Host(self.root, self.distributed, self.device)

    @cached_property
    def agreement(self) -> Agreement | None:
        """How vLLM agrees with transformers on the base; None if the engine is transformers.

        The answers are in the cache, so that only the first evaluation pays for them.

        Raises:
            ModelError: it does not agree.
        """
        if self.params.evaluate.engine == "transformers":
            return None
        questions = spread([one for eval_set in self.eval_sets for one in eval_set.questions])
        ours, theirs = (self._base_answers(questions, name) for name in ENGINES)
        found = require_agreement(questions, ours, theirs, self.params.task.dtype)
        logger.info("vLLM agrees with transformers: %s", found)
        return found

    def _base_answers(self, questions: list[Question], engine: EngineName) -> list[Completion]:
        """The base's greedy answers from one engine."""
        base, digest = base_path(self.params, self.root), questions_digest(questions)
        with Checkpoint(base, self.params, self.host, engine) as checkpoint:
            store = CompletionStore(self.root, checkpoint.completion_key(digest, self.contract))
            checkpoint.generate_missing(store, questions, f"agreement of engines, {engine}")
        self.distributed.wait_for_everyone()
        return store.read_all(len(questions))

    def evaluate_checkpoint(self, step: int, path: str | Path) -> list[Evaluation]:
        """The checkpoint's result on every eval set; generates what the cache lacks.

        Raises:
            ModelError: the checkpoint cannot be used, or vLLM disagrees with transformers.
            ResultError: at step 0, boxes score far better in another coordinate space than in the
                task's.
        """
        _ = self.agreement  # refused before anything is evaluated
        started = time.monotonic()
        label = f"{self.run} step {step}"
        with Checkpoint(path, self.params, self.host) as checkpoint:
            stores = [self._fill_caches(checkpoint, eval_set, label) for eval_set in self.eval_sets]
        self.distributed.wait_for_everyone()
        results = [
            self._score(step, checkpoint.digest, eval_set, *store)
            for eval_set, store in zip(self.eval_sets, stores, strict=True)
        ]
        if self.distributed.is_main_process:
            _log_accuracy(label, results, time.monotonic() - started)
        return results

    def require_coordinate_space(self, checks: list[tuple[int, str, CoordinateSpaceCheck]]) -> None:
        """Refuse a run whose boxes at every trained step are in another coordinate space.

        Args:
            checks: (step, dataset, check) of every evaluation; those of step 0 are left out.

        Raises:
            ResultError: all trained steps score far better in another one, on one dataset.
        """
        for eval_set in self.eval_sets:
            trained = [(s, check) for s, name, check in checks if s > 0 and name == eval_set.name]
            require_coordinate_space({self._file(eval_set, s): check for s, check in trained})

    def _fill_caches(
        self, checkpoint: Checkpoint, eval_set: EvalSet, label: str
    ) -> list[CompletionStore]:
        """The store of greedy answers, then one for each sampled repeat."""
        contract, settings, stores = self.contract, self.params.evaluate, []
        repeats = range(1, settings.repeats + 1)
        sampled = [Sampling(settings.temperature, contract.seed, repeat) for repeat in repeats]
        for sampling in (None, *sampled):
            key = checkpoint.completion_key(eval_set.questions_digest, contract, sampling)
            stores.append(CompletionStore(self.root, key))
            name = f"{label}  {eval_set.name}" + (f", repeat {sampling.repeat}" if sampling else "")
            checkpoint.generate_missing(stores[-1], eval_set.questions, name, sampling)
        return stores

    def _score(
        self,
        step: int,
        checkpoint_digest: str,
        eval_set: EvalSet,
        store: CompletionStore,
        *repeats: CompletionStore,
    ) -> Evaluation:
        coordinate_space = self.params.task.coordinate_space
        meta = {
            "method": self.method,
            "step": step,
            "contract": self.contract.model_dump(),
            "checkpoint_digest": checkpoint_digest,
            **eval_set.meta,
        }
        if self.agreement is not None:
            meta["engine_agreement"] = agreement_meta(self.agreement)
        count = len(eval_set.questions)
        sampled = [one.read_all(count) for one in repeats]
        completions = store.read_all(count)
        result = build_result(eval_set.records, completions, coordinate_space, meta, sampled)
        check = self._check(step, eval_set, result)
        marked = {**meta, "coordinate_space_check": check.to_meta()}
        return Evaluation(eval_set, result.model_copy(update={"meta": marked}), check)

    def _check(self, step: int, eval_set: EvalSet, result: ResultFile) -> CoordinateSpaceCheck:
        """Whether boxes are in the task's coordinate space; a large gain at step 0 is refused."""
        boxes = WrittenBoxes.from_rows(result.results, self.params.task.coordinate_space)
        tests = len(self.eval_sets) * len(self.params.step_grid(self.method))
        check = check_coordinate_space(boxes, tests=tests)
        file = self._file(eval_set, step)
        if step == 0:
            require_coordinate_space({file: check})
        if check.gain is not None and self.distributed.is_main_process:
            logger.warning("%s: %s", file, check.sentence)
        return check

    def _file(self, eval_set: EvalSet, step: int) -> str:
        return paths.result_file(self.run, eval_set.name, step).as_posix()


def make_evaluator(
    params: Params,
    root: Path,
    method: Method,
    device: str | None = None,
    seed: int | None = None,
    datasets: list[str] | None = None,
) -> Evaluator:
    """Read the eval sets and join the other processes, if there are any.

    Args:
        device: as torch names it ("cpu", "cuda:1"); by default this process's own.
        seed: one of experiment.seeds for a further training run.
        datasets: by default all that are evaluated.

    Raises:
        ConfigError: the experiment has no such seed, or vLLM cannot be used.
        DataError: records or an image are missing.
    """
    if params.evaluate.engine == "vllm":
        require_vllm(params, root, base_path(params, root))
    trained_under = contract_of(params.with_seed(seed), root, method)
    contract = evaluation_contract(trained_under, params)
    template = getattr(params.task.prompts, method)
    eval_sets = [
        make_eval_set(root, name, params.datasets[name], template)
        for name in (params.evaluated_datasets if datasets is None else datasets)
    ]
    # accelerate distributes over CPU processes only if it is told to use the CPU
    distributed = PartialState(cpu=not torch.accelerator.is_available(), timeout=BARRIER_TIMEOUT)
    own_device = distributed.device if device is None else torch.device(device)
    return Evaluator(params, root, method, contract, eval_sets, distributed, own_device)


def make_eval_set(root: Path, name: str, dataset: Dataset, template: str) -> EvalSet:
    """The prepared dataset `name` with its questions in a template of `prompts.TEMPLATES`.

    Raises:
        DataError: its records or an image are missing.
    """
    records = read_records(root / paths.records_file(name))
    questions = [
        question_about(template, expression, root / dataset.images / image, detected)
        for expression, image, detected in zip(
            records["expression"], records["image"], detects(records), strict=True
        )
    ]
    meta = {
        "dataset": name,
        "role": dataset.role,
        "records": len(records),
        "images": int(records["image"].nunique()),
        "records_digest": records_digest(records),
    }
    return EvalSet(name, records, questions, questions_digest(questions), meta)


def _log_accuracy(label: str, results: list[Evaluation], seconds: float) -> None:
    accuracies = "  ".join(f"{r.eval_set.name} {r.result.accuracy:.1f} %" for r in results)
    logger.info("%s  accuracy: %s  (%.1f s)", label, accuracies, seconds)
