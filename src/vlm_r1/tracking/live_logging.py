"""A training's run while it goes on: lines are handed over at once and sent in the background.

A server that does not answer neither stops the training nor loses a line: what waits is sent when
it is back, and training_log.jsonl has all of it in any case.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_r1.config import Params
from vlm_r1.rec.contract import TrainingContract
from vlm_r1.tracking.runs import (
    RunContext,
    best_effort,
    create_child,
    log_lines,
    pipeline_run_id,
    run_context,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

PAUSE_S = 2.0  # between two looks for lines to send

logger = logging.getLogger(__name__)


class LiveRun:
    """A child run that grows by lines of a training's log.

    Args:
        client: None if nothing is sent, as in all processes of a training but the first.
        run_id: the child run.
    """

    def __init__(self, client: "MlflowClient | None" = None, run_id: str | None = None) -> None:
        self.run_id = run_id
        self._client = client
        self._waiting: deque[dict[str, Any]] = deque()
        self._ends = threading.Event()
        self._warned = False
        self._thread = threading.Thread(target=self._send_until_end, daemon=True)
        if client is not None:
            self._thread.start()

    def log(self, line: dict[str, Any]) -> None:
        """Take a line of the log, {"step": n, quantity: value}; returns at once, never raises."""
        if self._client is not None:
            self._waiting.append(line)

    def end(self) -> bool:
        """Send what waits, a last time; whether all of it has been sent."""
        self._ends.set()
        if self._client is not None:
            self._thread.join()
        return not self._waiting

    def _send_until_end(self) -> None:
        while not self._ends.wait(PAUSE_S):
            self._send()
        self._send()

    def _send(self) -> None:
        from mlflow.exceptions import MlflowException

        lines = list(self._waiting)
        try:
            log_lines(self._client, self.run_id, lines)
        except MlflowException as error:
            if not self._warned:
                reason = str(error).splitlines()[0][:200]
                logger.warning("MLflow does not answer, lines wait in the log: %s", reason)
            self._warned = True
            return
        self._warned = False
        for _ in lines:
            self._waiting.popleft()


@contextmanager
def method_run(
    root: Path, params: Params, contract: TrainingContract, method: str
) -> Iterator[LiveRun]:
    """A new child run to hand the lines of a training to.

    Ends FINISHED; FAILED (the parent too) if the block raises; KILLED if a line could not be sent,
    so that `track_training` records it anew from its files. In any but the first process of a
    distributed training, and without a server to begin with, nothing is sent.
    """
    begun = None
    if int(os.environ.get("RANK", "0")) == 0:
        begun = best_effort(_begin, root, params, contract, method)
    if begun is None:
        yield LiveRun()
        return
    context, live = begun
    try:
        yield live
    except BaseException:
        live.end()
        best_effort(_terminate, context, live.run_id, "FAILED")
        raise
    best_effort(_terminate, context, live.run_id, "FINISHED" if live.end() else "KILLED")


def _begin(
    root: Path, params: Params, contract: TrainingContract, method: str
) -> tuple[RunContext, LiveRun]:
    context = run_context(root, params, contract, method)
    parent_id = pipeline_run_id(root, params, contract)
    context.client.update_run(parent_id, status="RUNNING")
    return context, LiveRun(context.client, create_child(context, parent_id))


def _terminate(context: RunContext, run_id: str, status: str) -> None:
    context.client.set_terminated(run_id, status)
    if status == "FAILED":
        parent_id = pipeline_run_id(context.root, context.params, context.contract)
        context.client.set_terminated(parent_id, status)
