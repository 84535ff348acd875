"""How long a flow run lives: alone in its checkout, ended as told, nothing of it left behind.

`ends_as_told` wraps a flow's function. The run then holds a lock on .run/flow.json, and a thread
watches its worker and its state on the server, through outages. Its guardian, a process of its own
(`python -m vlm_r1.processes`), ends what is left when the run is killed and can end nothing itself.
"""

import functools
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Crashed, State

from vlm_r1.errors import ConfigError
from vlm_r1.locks import lock
from vlm_r1.processes import end_group

LOCK = Path(".run/flow.json")  # {"flow_run", "pid"} of the run that holds it
RUN_MARK = "VLM_R1_RUN"  # a variable of all processes that a run starts
WORKER_MARK = "PREFECT__FLOW_RUN_ID"  # a variable of a flow that a worker started: its run
CHECK_S = 1.0
CHECKS_PER_STATE = 10  # the state is asked for every 10 s

P = ParamSpec("P")
R = TypeVar("R")


class RunEndedError(RuntimeError):
    """A stage was ended with its run."""


class Lifetime:
    """One run of a flow.

    Attributes:
        held: the locked file; a child that inherits it keeps the checkout locked until it ends.
        leader_pid: of the process group that runs the stage, while there is one.
        end_state: what the run was ended with, else None.
    """

    def __init__(self, held: IO[str]) -> None:
        self.held = held
        self.leader_pid: int | None = None
        self.end_state: State | None = None

    def end(self, state: State) -> None:
        """End the stage that runs; its error is then raised in the flow, which returns `state`."""
        self.end_state = state
        self._end_stage()

    @contextmanager
    def stage(self, leader_pid: int) -> Iterator[None]:
        """A stage runs in this process group meanwhile.

        Raises:
            RunEndedError: the run was told to end.
        """
        self.leader_pid = leader_pid
        if self.end_state is not None:  # told between two stages
            self._end_stage()
        try:
            yield
        finally:
            self.leader_pid = None
        if self.end_state is not None:  # whatever its exit code: psutil may have taken it away
            raise RunEndedError(self.end_state.message)

    def _end_stage(self) -> None:
        if self.leader_pid is not None:
            end_group(self.leader_pid)


_current: Lifetime | None = None
_guardian: subprocess.Popen | None = None  # kept: a Popen that is collected closes its pipe


def current() -> Lifetime | None:
    """The run of this process, None outside of one."""
    return _current


def ends_as_told(function: Callable[P, R]) -> Callable[P, R | State]:
    """Wrap a flow's function: alone in its checkout, ended when its run or its worker is.

    Raises:
        ConfigError: another run is at work in this checkout.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R | State:
        start_guardian()
        with _lifetime() as lifetime:
            try:
                return function(*args, **kwargs)
            except Exception:
                if lifetime.end_state is None:
                    raise
                return lifetime.end_state

    return run


def start_guardian() -> None:
    """Start this process's guardian, once; before the first child that is to end with it."""
    global _guardian
    if _guardian is not None:
        return
    mark = uuid.uuid4().hex
    _guardian = subprocess.Popen(
        [sys.executable, "-m", "vlm_r1.processes", RUN_MARK, mark],
        env={name: value for name, value in os.environ.items() if name != RUN_MARK},
        stdin=subprocess.PIPE,  # nothing is written: it closes when this process is gone
        start_new_session=True,
    )
    os.environ[RUN_MARK] = mark


@contextmanager
def _lifetime() -> Iterator[Lifetime]:
    global _current
    with _alone() as held:
        _current, over = Lifetime(held), threading.Event()
        threading.Thread(target=_watch, args=(_current, over, _run_id()), daemon=True).start()
        try:
            yield _current
        finally:
            over.set()
            _current = None


@contextmanager
def _alone() -> Iterator[IO[str]]:
    """Hold the checkout's lock with the run's id and pid in the file."""
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("a+", encoding="utf-8") as file:
        try:
            lock(file)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(
                got=f"a second run, while this one is at work: {file.read()}",
                need="one run at a time in a checkout",
                because="both would write the same files",
                do="wait for it or cancel it, or use a second clone",
            ) from None
        file.truncate(0)
        file.write(json.dumps({"flow_run": _run_id(), "pid": os.getpid()}))
        file.flush()
        yield file


def _run_id() -> str | None:
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else None


def _watch(lifetime: Lifetime, over: threading.Event, run_id: str | None) -> None:
    """End the run when its worker is gone or the server says that it has ended."""
    worker_pid = os.getppid() if WORKER_MARK in os.environ else None
    checks = 0
    while not over.wait(CHECK_S):
        checks += 1
        if worker_pid not in (None, os.getppid()):
            return lifetime.end(Crashed(message="its worker is gone"))
        if checks % CHECKS_PER_STATE == 0 and run_id and PREFECT_API_URL.value():
            told = _told_to_end(run_id)
            if told is not None:
                return lifetime.end(told)
    return None


def _told_to_end(run_id: str) -> State | None:
    """The state to end with; None while the run may go on, also while no server answers."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(uuid.UUID(run_id)).state
    except ObjectNotFound:
        return Cancelled(message="the run was deleted")
    except (httpx.HTTPError, RuntimeError):  # Prefect raises the latter where no server answers
        return None
    if state is None or not (state.is_final() or state.is_cancelling()):
        return None
    return state if state.is_final() else Cancelled(message="cancelled; its stage was ended")
