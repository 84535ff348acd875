"""A checkpoint under evaluation: opened only if it is asked what the cache does not know."""

import logging
import time
from functools import cached_property
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, ProcessorMixin

from vlm_r1.config import Params
from vlm_r1.inference.cache import CompletionKey, CompletionStore
from vlm_r1.inference.generate import answer, batches_of, make_prompts
from vlm_r1.inference.questions import Question
from vlm_r1.models.digest import checkpoint_digest
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.rec.contract import Contract

logger = logging.getLogger(__name__)


class Checkpoint:
    """A checkpoint, its digest, and (opened at first use) its model and processor."""

    def __init__(self, path: str | Path, params: Params, device: torch.device) -> None:
        self.digest = checkpoint_digest(path)
        self._path, self._task, self._device = path, params.task, device
        self._limits = params.evaluate

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model on its device, ready to answer."""
        return load_model(self._path, self._task).to(self._device).eval()

    @cached_property
    def processor(self) -> ProcessorMixin:
        """Its processor, with the task's pixel budget."""
        return load_processor(self._path, self._task)

    def key(self, questions_digest: str, contract: Contract) -> CompletionKey:
        """What its completions to these questions hang on."""
        return CompletionKey(
            checkpoint_digest=self.digest,
            questions_digest=questions_digest,
            attention=self._task.attention,
            **contract.model_dump(
                include={"base_digest", "min_pixels", "max_pixels", "dtype"}
                | {"max_new_tokens", "decoding"}
            ),
        )

    def complete(
        self, store: CompletionStore, questions: list[Question], label: str, share: PartialState
    ) -> None:
        """Answer what `store` lacks, batch by batch: this process's share of the batches.

        The batches are the same however many processes there are and whatever is done already,
        so that an interrupted or shared evaluation computes the very same numbers.
        """
        if len(store.read()) == len(questions):
            return
        prompts = make_prompts(self.processor, questions)
        limit = self._limits.max_new_tokens
        batches = batches_of(prompts, self._limits.batch_tokens, limit)
        mine = list(enumerate(batches, start=1))[share.process_index :: share.num_processes]
        with store.appending(share.process_index) as append:
            known = store.read().keys()
            for number, rows in mine:
                if known >= set(rows):
                    continue
                model, started = self.model, time.monotonic()
                batch = [prompts[row] for row in rows]
                append(rows, answer(model, self.processor, batch, limit))
                logger.info(
                    "%s  batch %d of %d  %.1f rows/s",
                    label, number, len(batches), len(rows) / (time.monotonic() - started),
                )  # fmt: skip
