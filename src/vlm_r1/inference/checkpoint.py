"""A checkpoint under evaluation; its engine is opened only for completions the cache lacks."""

import logging
import time
from functools import cached_property
from pathlib import Path

from vlm_r1.config import EngineName, Params
from vlm_r1.inference.cache import CompletionKey, CompletionStore
from vlm_r1.inference.engines.base import Engine, Host, Versions
from vlm_r1.inference.engines.transformers_engine import TransformersEngine, transformers_versions
from vlm_r1.inference.engines.vllm_engine import VllmEngine
from vlm_r1.inference.engines.vllm_environment import vllm_versions
from vlm_r1.inference.questions import Question
from vlm_r1.inference.sampling import Sampling
from vlm_r1.models.digest import checkpoint_digest
from vlm_r1.rec.contract import Contract

logger = logging.getLogger(__name__)


class Checkpoint:
    """A checkpoint and its digest; leaving its block closes its engine.

    Args:
        path: a folder.
        params: `task` and `evaluate`.
        engine: None: the one that `params` names.
    """

    def __init__(
        self, path: str | Path, params: Params, host: Host, engine: EngineName | None = None
    ) -> None:
        self.digest = checkpoint_digest(path)
        self._path, self._params, self._host = path, params, host
        self._engine_name = engine or params.evaluate.engine

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        if "engine" in self.__dict__:  # it was opened
            self.engine.close()

    @cached_property
    def engine(self) -> Engine:
        """What answers the questions."""
        engine = TransformersEngine if self._engine_name == "transformers" else VllmEngine
        return engine(self._path, self._params.task, self._params.evaluate, self._host)

    @property
    def _versions(self) -> Versions:
        if self._engine_name == "transformers":
            return transformers_versions()
        return vllm_versions(self._host.root / self._params.evaluate.vllm.python)

    def completion_key(
        self, questions_digest: str, contract: Contract, sampling: Sampling | None = None
    ) -> CompletionKey:
        """The cache key of its completions to these questions, greedy or sampled."""
        own_attention = self._engine_name == "transformers"  # vLLM chooses one of its own
        return CompletionKey(
            checkpoint_digest=self.digest,
            questions_digest=questions_digest,
            attention=self._params.task.attention if own_attention else "",
            base_digest=contract.base_digest,
            min_pixels=contract.min_pixels,
            max_pixels=contract.max_pixels,
            dtype=contract.dtype,
            max_new_tokens=contract.max_new_tokens,
            decoding=contract.decoding if sampling is None else sampling.decoding,
            **self._versions._asdict(),
        )

    def generate_missing(
        self,
        store: CompletionStore,
        questions: list[Question],
        label: str,
        sampling: Sampling | None = None,
    ) -> None:
        """Generate the completions `store` lacks, in this process's share of the rows."""
        if len(store.read()) == len(questions):
            return
        with store.appending(self._host.distributed.process_index) as append:
            cached, started, total = store.read().keys(), time.monotonic(), 0
            for rows, completions in self.engine.answer(questions, cached, sampling):
                append(rows, completions)
                total += len(rows)
                rows_per_s = total / (time.monotonic() - started)
                logger.info(
                    "%s  %d new of %d rows  %.1f rows/s", label, total, len(questions), rows_per_s
                )
