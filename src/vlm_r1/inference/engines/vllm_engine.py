"""The engine `vllm`: a server for one checkpoint, asked over its OpenAI-compatible HTTP API.

Only the first process asks; the server itself runs on as many GPUs as the evaluation has processes.
"""

import logging
from collections.abc import Iterator, Set
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import ProcessorMixin

from vlm_r1 import paths
from vlm_r1.config import Task
from vlm_r1.config.sections import Evaluate
from vlm_r1.data.images import read_image_size
from vlm_r1.inference.chat_prompts import Prompt, make_prompts
from vlm_r1.inference.engines.base import Answers, Host
from vlm_r1.inference.engines.vllm_environment import server_arguments, visible_device
from vlm_r1.inference.engines.vllm_requests import (
    GREEDY,
    expected_ids,
    request,
    require_prompt,
    sampled,
)
from vlm_r1.inference.engines.vllm_server import VllmServer, vllm_server
from vlm_r1.inference.questions import Completion, Question
from vlm_r1.inference.sampling import Sampling
from vlm_r1.models.families import Family, family_of
from vlm_r1.models.loading import load_processor, model_type_at
from vlm_r1.rec.contract import STOP

logger = logging.getLogger(__name__)

REQUESTS = 256  # at once: the rows that vLLM's scheduler takes into one step by default
SAVED_ROWS = 64  # completions that are written to the cache at a time


class VllmEngine:
    """Starts a server at the first row it must answer, and ends it when it is closed.

    A new server for each checkpoint: weights loaded into a running one gave other answers.

    Args:
        path: a folder or a hub name.
        task: pixel budget and dtype; vLLM chooses its own attention.
        settings: the token budget of a completion, and the server's settings.
    """

    def __init__(self, path: str | Path, task: Task, settings: Evaluate, host: Host) -> None:
        self._path, self._task, self._settings, self._host = path, task, settings, host
        self._server_block = ExitStack()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # a training before it in this process leaves the GPU to vLLM

    @cached_property
    def processor(self) -> ProcessorMixin:
        """The checkpoint's own processor, which the server's is held to."""
        return load_processor(self._path, self._task)

    @cached_property
    def family(self) -> Family:
        """The checkpoint's family, which says to what size an image is resized."""
        return family_of(model_type_at(self._path))

    @cached_property
    def server(self) -> VllmServer:
        """The checkpoint's server, started and ready."""
        settings, processes = self._settings.vllm, self._host.distributed.num_processes
        name = "-".join(Path(self._path).parts[-2:])  # as sft-checkpoint-20
        return self._server_block.enter_context(
            vllm_server(
                self._host.root / settings.python,
                server_arguments(self._path, self._task, settings.gpu_memory_share, processes),
                (self._host.root / paths.VLLM_LOGS / f"{name}.log").resolve(),
                {"VLLM_NO_USAGE_STATS": "1"} | visible_device(self._host.device, processes),
                settings.start_timeout_s,
            )
        )

    def answer(
        self, questions: list[Question], cached: Set[int], sampling: Sampling | None = None
    ) -> Iterator[Answers]:
        """Completions of the rows that are not in `cached`, as they come in.

        Raises:
            ModelError: the server died, or saw another prompt than this checkpoint's processor
                makes.
        """
        missing = [row for row in range(len(questions)) if row not in cached]
        if not missing or not self._host.distributed.is_main_process:
            return
        prompts, server, _ = make_prompts(self.processor, questions), self.server, self.family

        def ask(row: int) -> Completion:
            decoding = sampled(sampling, row) if sampling else GREEDY
            body = request(questions[row], self._settings.max_new_tokens) | decoding
            return self._completion(server, prompts[row], body)

        with ThreadPoolExecutor(REQUESTS) as threads:
            rows_of = {threads.submit(ask, row): row for row in missing}
            try:
                yield from _in_parts(rows_of)
            finally:
                threads.shutdown(cancel_futures=True)

    def close(self) -> None:
        """End the server."""
        self._server_block.close()

    def _completion(self, server: VllmServer, prompt: Prompt, body: dict[str, Any]) -> Completion:
        answer = server.post("/v1/chat/completions", body)
        require_prompt(expected_ids(self.processor, prompt), answer["prompt_token_ids"], prompt)
        choice, tokens = answer["choices"][0], answer["usage"]["completion_tokens"]
        text = choice["message"]["content"] or ""
        cut_off = choice["finish_reason"] == "length" and STOP not in text
        size = self.family.input_size(*read_image_size(prompt.image), self._task)
        return Completion(text, size, tokens, cut_off)


def _in_parts(rows_of: dict[Future[Completion], int]) -> Iterator[Answers]:
    """The completions as they come in, `SAVED_ROWS` at a time."""
    part = Answers([], [])
    for future in as_completed(rows_of):
        part.rows.append(rows_of[future])
        part.completions.append(future.result())
        if len(part.rows) == SAVED_ROWS:
            yield part
            part = Answers([], [])
    if part.rows:
        yield part
