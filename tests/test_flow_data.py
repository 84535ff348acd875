"""Fetching as a Prefect task: which faults are retried and how often; the data flow."""

import asyncio
import logging
from pathlib import Path

import pytest
from prefect.states import Failed

from flows import data as flow
from tasks import source as source_task
from tasks import stage as stage_task
from tasks.source import RETRIES, SourceFailedError, fetch_source
from tests.archive_server import Fault, serve, zip_of
from tests.layout import SOURCE


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A mirror for a project in the current folder, which does not use DVC."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage_task, "get_run_logger", lambda: logging.getLogger("fetch"))
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    with serve() as archives:
        archives.files["refgta.zip"] = zip_of({"a.png": b"a"})
        monkeypatch.setenv("VLM_R1_MIRROR", archives.address)
        yield archives


def test_the_task_fetches_through_the_command(server):
    fetch_source.fn("refgta")
    assert Path("data/raw/refgta.zip").read_bytes() == server.files["refgta.zip"]


@pytest.mark.parametrize(("status", "again"), [(503, True), (404, False)])
def test_only_temporary_errors_are_retried(server, status, again):
    server.faults = [Fault(status=status)]
    with pytest.raises(
        SourceFailedError, match=f"(?s)fetching refgta ended.*HTTP {status}"
    ) as raised:
        fetch_source.fn("refgta")
    state = Failed(data=raised.value)
    assert asyncio.run(source_task._is_temporary(None, None, state)) is again


def test_retries_back_off_twice_as_long_each_time():
    assert fetch_source.retries == RETRIES == 5
    assert fetch_source.retry_delay_seconds == [10, 20, 40, 80, 160]
    assert fetch_source.retry_condition_fn is source_task._is_temporary


def test_the_flow_fetches_what_params_name_and_then_runs_the_stages(monkeypatch):
    done = []
    monkeypatch.setattr(flow, "fetch_source", lambda name: done.append(f"fetch {name}"))
    monkeypatch.setattr(flow, "run_stage", done.append)
    monkeypatch.setattr(flow, "publish_validation", lambda: done.append("verdicts"))
    flow.data.fn(["refgta", "lisa_test"])
    assert done == ["fetch refgta", "fetch lisa_test", "unpack", "version", "prepare", "verdicts"]
    done.clear()
    flow.data.fn()
    assert done == ["unpack", "version", "prepare", "verdicts"], "the laptop profile has no sources"


def test_the_validation_is_published_even_if_data_fails(monkeypatch):
    done = []

    def run_stage(stage):
        if stage == "prepare":
            raise stage_task.StageFailedError("prepare")

    monkeypatch.setattr(flow, "run_stage", run_stage)
    monkeypatch.setattr(flow, "publish_validation", lambda: done.append("verdicts"))
    with pytest.raises(stage_task.StageFailedError):
        flow.data.fn()
    assert done == ["verdicts"]
