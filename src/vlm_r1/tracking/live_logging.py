"""Live metrics of a training: lines are queued and sent by a background thread.

A server that is down neither blocks the training nor loses a line: queued lines are sent when it is
back, and training_log.jsonl has all of them in any case.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_r1.config import Method, Params
from vlm_r1.rec.contract import TrainingContract
from vlm_r1.tracking.entities import log_lines
from vlm_r1.tracking.runs import RunContext, create_child, pipeline_run_id, run_context
from vlm_r1.tracking.store import best_effort, first_line, is_first_process

if TYPE_CHECKING:
    from mlflow import MlflowClient

PAUSE_S = 2.0  # between two attempts to send

logger = logging.getLogger(__name__)


class LiveRun:
    """A child run that receives the lines of a training's log while it runs.

    Args:
        client: None to send nothing, as in every process of a training but the first.
        run_id: the child run.
    """

    def __init__(self, client: "MlflowClient | None" = None, run_id: str | None = None) -> None:
        self.run_id = run_id
        self._client = client
        self._queue: deque[dict[str, Any]] = deque()
        self._ending = threading.Event()
        self._warned = False
        self._thread = threading.Thread(target=self._send_until_end, daemon=True)
        if client is not None:
            self._thread.start()

    def log(self, line: dict[str, Any]) -> None:
        """Queue a line of the log, {"step": n, quantity: value}; returns at once, never raises."""
        if self._client is not None:
            self._queue.append(line)

    def end(self) -> bool:
        """Try to send what is queued a last time; True if everything has been sent."""
        self._ending.set()
        if self._client is not None:
            self._thread.join()
        return not self._queue

    def _send_until_end(self) -> None:
        while not self._ending.wait(PAUSE_S):
            self._send()
        self._send()

    def _send(self) -> None:
        from mlflow.exceptions import MlflowException

        if self._client is None or self.run_id is None:
            return
        lines = list(self._queue)
        try:
            log_lines(self._client, self.run_id, lines)
        except MlflowException as error:
            if not self._warned:
                logger.warning(
                    "MLflow does not answer, lines wait in the log: %s", first_line(error)
                )
            self._warned = True
            return
        self._warned = False
        for _ in lines:
            self._queue.popleft()


@contextmanager
def live_run(
    root: Path, params: Params, contract: TrainingContract, method: Method
) -> Iterator[LiveRun]:
    """A new child run for the lines of the training in the block.

    It ends as FINISHED; as FAILED, with its parent, if the block raises; as KILLED if a line could
    not be sent, and `track_training` then records a complete run from the files. Sends nothing in
    the other processes of a distributed training, or if MLflow fails at the start.
    """
    begun = best_effort(_begin, root, params, contract, method) if is_first_process() else None
    if begun is None:
        yield LiveRun()
        return
    context, run_id, live = begun
    try:
        yield live
    except BaseException:
        live.end()
        best_effort(_terminate, context, run_id, "FAILED")
        raise
    best_effort(_terminate, context, run_id, "FINISHED" if live.end() else "KILLED")


def _begin(
    root: Path, params: Params, contract: TrainingContract, method: Method
) -> tuple[RunContext, str, LiveRun]:
    context = run_context(root, params, contract, method)
    parent_id = pipeline_run_id(root, params, contract)
    context.client.update_run(parent_id, status="RUNNING")
    run_id = create_child(context, parent_id)
    return context, run_id, LiveRun(context.client, run_id)


def _terminate(context: RunContext, run_id: str, status: str) -> None:
    context.client.set_terminated(run_id, status)
    if status == "FAILED":
        parent_id = pipeline_run_id(context.root, context.params, context.contract)
        context.client.set_terminated(parent_id, status)
