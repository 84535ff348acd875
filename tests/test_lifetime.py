"""A flow run is alone in its checkout, ends as told, and leaves nothing when it is killed."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from types import SimpleNamespace

import httpx
import psutil
import pytest
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Running

from tasks import lifetime, stage
from tests.layout import ROOT
from vlm_r1.errors import ConfigError
from vlm_r1.processes import process_group, with_variable

SLEEP_S = "97.531"  # peculiar, and bounded should a test hang
PATIENCE_S = 30
RUN = """
import subprocess, sys
from tasks.lifetime import start_guardian
start_guardian()
# a session of its own, and a parent that ends at once: no group and no tree leads to the sleeper
subprocess.run(["bash", "-c", f"setsid sleep {sys.argv[1]} >/dev/null & echo started"], check=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """An empty checkout, and a process that has no guardian."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lifetime, "start_guardian", lambda: None)
    monkeypatch.setattr(lifetime, "CHECK_S", 0.05)
    return tmp_path


def sleepers() -> list[psutil.Process]:
    wanted = ["sleep", SLEEP_S]
    return [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == wanted]


def await_sleepers(count: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while len(sleepers()) != count:
        assert time.monotonic() < deadline_s, f"{len(sleepers())} sleepers, not {count}"
        time.sleep(0.05)


def test_a_run_that_is_killed_leaves_nothing_behind():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    command = [sys.executable, "-c", RUN, SLEEP_S]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, **pipes) as run:
        run.stdout.readline()
        await_sleepers(1)
        mark = sleepers()[0].environ()[lifetime.RUN_MARK]
        run.kill()
    await_sleepers(0)
    assert with_variable(lifetime.RUN_MARK, mark) == []


def test_a_second_run_is_refused_and_told_of_the_first(checkout):
    with lifetime._lifetime():
        first = json.loads((checkout / lifetime.LOCK).read_text(encoding="utf-8"))
        assert first == {"flow_run": None, "pid": os.getpid()}
        with pytest.raises(ConfigError, match=f"at work: .*{os.getpid()}"):
            lifetime.ends_as_told(lambda: None)()
    assert lifetime.ends_as_told(lambda: 7)() == 7


def test_the_checkout_stays_locked_until_the_stage_has_ended():
    with lifetime._lifetime() as run:
        child = subprocess.Popen(["sleep", SLEEP_S], pass_fds=[run.held.fileno()])
    with pytest.raises(ConfigError, match="one run at a time"):
        lifetime.ends_as_told(lambda: None)()
    child.kill()
    child.wait()
    assert lifetime.ends_as_told(lambda: 7)() == 7


def test_a_run_that_was_told_to_end_ends_its_stage_and_has_the_state_that_was_told(monkeypatch):
    told = Cancelled(message="by a person")
    monkeypatch.setattr(lifetime, "_run_id", lambda: str(uuid.uuid4()))
    monkeypatch.setattr(lifetime, "CHECKS_PER_STATE", 1)
    monkeypatch.setattr(lifetime, "_told_to_end", lambda _: told if sleepers() else None)
    monkeypatch.setattr(lifetime, "PREFECT_API_URL", SimpleNamespace(value=lambda: "http://there"))
    assert lifetime.ends_as_told(sleeping_stage)() is told
    await_sleepers(0)


def test_a_run_whose_worker_is_gone_ends_as_crashed(monkeypatch):
    parents = iter([1234, 1234, 1])  # init takes an orphan
    monkeypatch.setenv(lifetime.WORKER_MARK, "this run")
    monkeypatch.setattr(lifetime.os, "getppid", lambda: next(parents, 1))
    state = lifetime.ends_as_told(sleeping_stage)()
    assert state.is_crashed()
    assert state.message == "its worker is gone"
    await_sleepers(0)


def test_a_failure_of_a_run_that_was_not_told_to_end_stays_one():
    def fails() -> None:
        raise stage.StageFailedError("as it is")

    with pytest.raises(stage.StageFailedError, match="as it is"):
        lifetime.ends_as_told(fails)()


def test_a_stage_that_starts_after_the_run_was_told_to_end_is_ended():
    with lifetime._lifetime() as run:
        run.end(Crashed(message="its worker is gone"))
        with pytest.raises(lifetime.RunEndedError, match="its worker is gone"):
            sleeping_stage()
    await_sleepers(0)


@pytest.mark.parametrize(
    ("state", "type_told"),
    [
        (Running(), None),
        (None, None),
        (Cancelling(), "CANCELLED"),
        (Cancelled(), "CANCELLED"),
        (Crashed(), "CRASHED"),
        (Completed(), "COMPLETED"),
    ],
)
def test_only_a_state_that_ends_a_run_ends_it(monkeypatch, state, type_told):
    answer(monkeypatch, lambda _: SimpleNamespace(state=state))
    told = lifetime._told_to_end(str(uuid.uuid4()))
    assert (told and told.type.value) == type_told


def test_a_server_that_is_away_ends_no_run_and_a_deleted_run_ends(monkeypatch):
    answer(monkeypatch, raising(httpx.ConnectError("refused")))
    assert lifetime._told_to_end(str(uuid.uuid4())) is None
    answer(monkeypatch, raising(ObjectNotFound(ValueError())))
    assert lifetime._told_to_end(str(uuid.uuid4())).is_cancelled()


def sleeping_stage() -> None:
    """As tasks/stage.py runs a stage."""
    with process_group(["sleep", SLEEP_S]) as leader, lifetime.current().stage(leader.pid):
        leader.wait(PATIENCE_S)


def raising(error: Exception):
    def read(_):
        raise error

    return read


def answer(monkeypatch, read_flow_run) -> None:
    class Client(SimpleNamespace):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    client = Client(read_flow_run=read_flow_run)
    monkeypatch.setattr(lifetime, "get_client", lambda sync_client: client)


def test_no_thread_of_a_run_outlives_it():
    before = threading.active_count()
    lifetime.ends_as_told(lambda: None)()
    deadline_s = time.monotonic() + PATIENCE_S
    while threading.active_count() > before:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
