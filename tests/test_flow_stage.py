"""Running a stage: lines as they come, failures named, nothing left behind."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tasks import stage as stage_task
from tasks.stage import StageFailedError, run_stage
from tests.layout import ROOT
from vlm_r1.errors import ConfigError
from vlm_r1.processes import end_group, process_group

SLEEP_S = "98.765"  # peculiar, and bounded should a test hang


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A DVC project with one stage for each thing that can happen."""
    commands = {
        "talks": "echo first; for i in $(seq 600); do [ -e seen ] && break; sleep 0.05; done;"
        " [ -e seen ] && echo second && touch out-talks",
        "fails": "echo before; echo the reason >&2; exit 3",
        "redraws": r"printf '10%%\r50%%\r100%%\n'; touch out-redraws",
        "sleeps": f"sleep {SLEEP_S} & echo asleep; sleep {SLEEP_S}",
    }
    listed = {name: {"cmd": cmd, "outs": [f"out-{name}"]} for name, cmd in commands.items()}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": listed}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage_task, "get_run_logger", lambda: logging.getLogger("stage"))
    monkeypatch.delenv("DVC_STAGE", raising=False)
    subprocess.run([str(stage_task.BIN / "dvc"), "init", "--no-scm", "--quiet"], check=True)
    return tmp_path


@pytest.fixture(autouse=True)
def no_sleeper_outlives_its_test():
    yield
    for sleeper in sleepers():
        sleeper.kill()


class Reactions(logging.Handler):
    """Calls back on a line; keeps all lines."""

    def __init__(self, reactions: dict):
        super().__init__()
        self.lines, self.reactions = [], reactions

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.reactions.get(record.getMessage(), lambda: None)()


@pytest.fixture
def listen():
    """Put a handler with reactions on the stage's logger; gives its lines."""
    logger, added = logging.getLogger("stage"), []
    logger.setLevel(logging.INFO)

    def add(**reactions) -> list[str]:
        added.append(Reactions(reactions))
        logger.addHandler(added[-1])
        return added[-1].lines

    yield add
    for handler in added:
        logger.removeHandler(handler)


def test_lines_are_logged_while_the_command_still_runs(project, listen):
    lines = listen(first=(project / "seen").touch)  # the command ends only once it is there
    seconds = run_stage.fn("talks")
    assert lines.index("first") < lines.index("second")
    assert seconds > 0


def test_a_progress_bar_is_logged_in_its_last_state(project, listen):
    lines = listen()
    run_stage.fn("redraws")
    assert "100%" in lines
    assert not any(line.startswith("10%") for line in lines)


def test_a_failed_command_names_the_stage_and_its_last_lines(project):
    with pytest.raises(StageFailedError, match=r"(?s)stage fails ended with code \d+.*the reason"):
        run_stage.fn("fails")
    assert not (project / "dvc.lock").exists()


def test_an_unknown_stage_is_told_by_dvc(project):
    with pytest.raises(StageFailedError, match="'nosuch' not found"):
        run_stage.fn("nosuch")


def test_a_stage_may_not_start_stages(project, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "report")
    with pytest.raises(ConfigError, match="stage talks started from within DVC's stage report"):
        run_stage.fn("talks")


def test_when_dvc_is_killed_its_command_ends_too(project, listen):
    listen(asleep=lambda: [child.kill() for child in psutil.Process().children()])
    with pytest.raises(StageFailedError, match="stage sleeps ended with code -9"):
        run_stage.fn("sleeps")
    assert sleepers() == []


def test_when_the_flow_is_told_to_end_nothing_is_left_and_dvc_can_run_again(project):
    program = """
import logging, signal, sys
from tasks import stage
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s", force=True)
stage.get_run_logger = logging.getLogger
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))  # as Prefect does: it raises
stage.run_stage.fn("sleeps")
"""
    flow = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert any(line == "asleep\n" for line in flow.stdout)
    await_sleepers(2)
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(timeout=60) == 7
    assert sleepers() == []
    run_stage.fn("redraws")


def test_what_ignores_the_polite_request_is_killed():
    command = ["bash", "-c", f"trap '' TERM; echo ready; sleep {SLEEP_S}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as leader:
        leader.stdout.readline()
        end_group(leader.pid, grace_s=0.2)
        assert leader.wait() == -signal.SIGKILL
    assert sleepers() == []


def test_descendants_in_a_session_of_their_own_end_too():
    command = ["bash", "-c", f"setsid sleep {SLEEP_S} & echo started; wait"]
    with process_group(command, stdout=subprocess.PIPE) as leader:
        leader.stdout.readline()
        await_sleepers(1)
    assert sleepers() == []


def test_other_processes_live_on():
    with process_group(["sleep", SLEEP_S]) as other:
        with process_group(["sleep", SLEEP_S]) as leader:
            await_sleepers(2)
        assert leader.poll() is not None
        assert other.poll() is None


def await_sleepers(count: int) -> None:
    deadline_s = time.monotonic() + 30
    while len(sleepers()) != count and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert len(sleepers()) == count


def sleepers() -> list[psutil.Process]:
    """Living descendants or orphans of this test that sleep its peculiar time."""
    wanted = ["sleep", SLEEP_S]
    return [p for p in psutil.process_iter(["cmdline", "status"]) if p.info["cmdline"] == wanted]
