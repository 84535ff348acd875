"""A checkpoint under evaluation; its model is loaded only for completions the cache lacks."""

import logging
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, ProcessorMixin

from vlm_r1.config import Task
from vlm_r1.config.sections import Evaluate
from vlm_r1.inference.cache import CompletionKey, CompletionStore
from vlm_r1.inference.generate import batch_prompts, generate_batch, make_prompts
from vlm_r1.inference.questions import Question
from vlm_r1.inference.sampling import Sampling
from vlm_r1.models.digest import checkpoint_digest
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.rec.contract import Contract

logger = logging.getLogger(__name__)


class Checkpoint:
    """A checkpoint and its digest; model and processor are loaded at first use.

    Args:
        path: a folder.
        task: pixel budget, dtype and attention.
        limits: the token budgets of a batch and of a completion.
    """

    def __init__(
        self, path: str | Path, task: Task, limits: Evaluate, device: torch.device
    ) -> None:
        self.digest = checkpoint_digest(path)
        self._path, self._task, self._limits, self._device = path, task, limits, device

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model on its device, in evaluation mode."""
        model: Any = load_model(self._path, self._task)
        return model.to(self._device).eval()

    @cached_property
    def processor(self) -> ProcessorMixin:
        """Its processor, with the task's pixel budget."""
        return load_processor(self._path, self._task)

    def completion_key(
        self, questions_digest: str, contract: Contract, sampling: Sampling | None = None
    ) -> CompletionKey:
        """The cache key of its completions to these questions, greedy or sampled."""
        return CompletionKey(
            checkpoint_digest=self.digest,
            questions_digest=questions_digest,
            attention=self._task.attention,
            base_digest=contract.base_digest,
            min_pixels=contract.min_pixels,
            max_pixels=contract.max_pixels,
            dtype=contract.dtype,
            max_new_tokens=contract.max_new_tokens,
            decoding=contract.decoding if sampling is None else sampling.decoding,
        )

    def generate_missing(
        self,
        store: CompletionStore,
        questions: list[Question],
        label: str,
        distributed: PartialState,
        sampling: Sampling | None = None,
    ) -> None:
        """Generate the completions `store` lacks, in this process's share of the batches.

        The batches do not depend on the number of processes or on what is cached, so an interrupted
        or distributed evaluation computes the same numbers as one in a single process.
        """
        if len(store.read()) == len(questions):
            return
        prompts = make_prompts(self.processor, questions)
        max_new_tokens = self._limits.max_new_tokens
        batches = batch_prompts(prompts, self._limits.batch_tokens, max_new_tokens)
        numbered = list(enumerate(batches, start=1))
        with store.appending(distributed.process_index) as append:
            cached = store.read().keys()
            for number, rows in numbered[distributed.process_index :: distributed.num_processes]:
                if cached >= set(rows):
                    continue
                model, started = self.model, time.monotonic()
                batch = [prompts[row] for row in rows]
                noise = None if sampling is None else sampling.noise(rows, model.device)
                append(rows, generate_batch(model, self.processor, batch, max_new_tokens, noise))
                rows_per_s = len(rows) / (time.monotonic() - started)
                logger.info(
                    "%s  batch %d of %d  %.1f rows/s", label, number, len(batches), rows_per_s
                )
