"""An MLflow server that dies and comes back during a training: nothing stops, nothing is lost."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.tracking_files import copy_database, tiny_params, write_experiment
from vlm_r1 import tracking
from vlm_r1.tracking import live_logging
from vlm_r1.tracking.live_logging import live_run
from vlm_r1.tracking.store import best_effort
from vlm_r1.tracking.trainings import track_training

MLFLOW = str(Path(sys.executable).with_name("mlflow"))


class Server:
    """A real MLflow server on a free port of loopback; its database outlives it."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._home = home
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        store = ["--backend-store-uri", f"sqlite:///{self._home}/mlflow.db"]
        artifacts = ["--artifacts-destination", str(self._home / "artifacts")]
        with (self._home / "log").open("a") as log:
            self._process = subprocess.Popen(
                [MLFLOW, "server", *address, *store, *artifacts],
                stdout=log,
                stderr=log,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                start_new_session=True,
            )
        wait_until(self._answers)

    def die(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health"):
            return True
        return False


def wait_until(true, patience_s: float = 120) -> None:
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def server(tmp_path, empty, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    copy_database(empty, tmp_path)
    server = Server(tmp_path / ".mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(live_logging, "PAUSE_S", 0.1)
    yield server
    server.die()


def test_a_server_that_dies_and_comes_back_gets_every_line(server, tmp_path, caplog):
    root, params = tmp_path / "project", tiny_params("server")
    contract = write_experiment(root, params)

    with live_run(root, params, contract, "sft") as unsent:  # no server to begin with
        unsent.log({"step": 1, "loss": 1.0})
    assert unsent.run_id is None
    assert "MLflow fails; the files have everything" in caplog.text

    server.start()
    client = tracking.configure(root)

    def losses(run_id: str) -> list[tuple[int, float]]:
        found = client.get_metric_history(run_id, "loss")
        return sorted((metric.step, metric.value) for metric in found)

    with live_run(root, params, contract, "sft") as run:
        run.log({"step": 1, "loss": 1.0})
        wait_until(lambda: losses(run.run_id) == [(1, 1.0)])
        server.die()
        started = time.monotonic()
        for step in range(2, 50):
            run.log({"step": step, "loss": 1 / step})
        assert time.monotonic() - started < 1
        wait_until(lambda: "MLflow does not answer" in caplog.text)
        server.start()
    assert losses(run.run_id) == [(step, pytest.approx(1 / step)) for step in range(1, 50)]
    assert client.get_run(run.run_id).info.status == "FINISHED"

    server.die()
    assert best_effort(track_training, root, params, contract, "sft") is None
