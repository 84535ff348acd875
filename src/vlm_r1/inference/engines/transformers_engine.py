"""The engine `transformers`: generation in this process, in batches under a token budget."""

from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel, ProcessorMixin

from vlm_r1.config import Task
from vlm_r1.config.sections import Evaluate
from vlm_r1.inference.chat_prompts import batch_prompts, make_prompts
from vlm_r1.inference.engines.base import Answers, Host, Versions
from vlm_r1.inference.generate import PreparedBatch, generate_prepared, prepare_batch
from vlm_r1.inference.questions import Question
from vlm_r1.inference.sampling import Sampling
from vlm_r1.inference.token_budget import token_budget
from vlm_r1.models.loading import load_model, load_processor

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


class TransformersEngine:
    """Loads model and processor at first use; the processes of `host` share the batches.

    Args:
        path: a folder or a hub name.
        task: pixel budget, dtype and attention.
        limits: the token budgets of a batch and of a completion.
    """

    def __init__(self, path: str | Path, task: Task, limits: Evaluate, host: Host) -> None:
        self._path, self._task, self._limits, self._host = path, task, limits, host

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model on its device, in evaluation mode."""
        model: Any = load_model(self._path, self._task)
        return model.to(self._host.device).eval()

    @cached_property
    def processor(self) -> ProcessorMixin:
        """Its processor, with the task's pixel budget."""
        return load_processor(self._path, self._task)

    def answer(
        self, questions: list[Question], cached: Set[int], sampling: Sampling | None = None
    ) -> Iterator[Answers]:
        """Completions of each batch that is not in `cached` as a whole.

        The batches do not depend on the number of processes or on what is cached, so an interrupted
        or distributed evaluation computes the same numbers as one in a single process. While one is
        generated, the next one's images are opened and processed.
        """
        prompts, limit = make_prompts(self.processor, questions), self._limits.max_new_tokens
        budget = self._limits.batch_tokens or token_budget(self.model)
        processes = self._host.distributed
        share = batch_prompts(prompts, budget, limit)[
            processes.process_index :: processes.num_processes
        ]
        missing = [rows for rows in share if not cached >= set(rows)]

        def prepare(rows: list[int]) -> PreparedBatch:
            return prepare_batch(self.processor, [prompts[row] for row in rows])

        for rows, batch in zip(missing, one_ahead(prepare, missing), strict=True):
            noise = None if sampling is None else sampling.noise(rows, self.model.device)
            yield Answers(rows, generate_prepared(self.model, self.processor, batch, limit, noise))

    def close(self) -> None:
        """Drop the model, and give its memory back to the device."""
        self.__dict__.pop("model", None)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def transformers_versions() -> Versions:
    """Of the packages that are installed here."""
    return Versions("transformers", *map(metadata.version, ("torch", "transformers")))


def one_ahead(prepare: Callable[[Item], Prepared], items: Iterable[Item]) -> Iterator[Prepared]:
    """`prepare(item)` of each item, in order; a thread makes the next while one is in use."""
    current: Future[Prepared] | None = None
    with ThreadPoolExecutor(max_workers=1) as thread:
        for item in items:
            following = thread.submit(prepare, item)
            if current is not None:
                yield current.result()
            current = following
        if current is not None:
            yield current.result()
