"""The flow's table of seconds, the artifact's text, the deployments, the servers' bookkeeping."""

import base64
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from PIL import Image

from flows.generalization import seconds_table
from tasks import servers
from tasks.artifact import WIDTH_PX, embed_curves
from tests.layout import ROOT
from vlm_r1.errors import ConfigError


def test_the_table_of_seconds_ends_with_their_sum():
    rows = [line.split() for line in seconds_table({"draw": 1.25, "sft": 60.0}).splitlines()]
    assert rows == [["draw", "1.2", "s"], ["sft", "60.0", "s"], ["all", "61.2", "s"]]


def test_the_curves_are_inside_the_artifact_and_other_images_are_named(tmp_path):
    Image.new("RGB", (1800, 600), "white").save(tmp_path / "curves.png")
    page = tmp_path / "report.md"
    page.write_text("# Report\n![curves](curves.png)\n![a case](gallery/1.png)\n")
    title, curves, other = embed_curves(page).splitlines()
    assert (title, other) == ("# Report", "`gallery/1.png`")
    data = re.fullmatch(r"!\[curves\]\(data:image/png;base64,(.+)\)", curves)[1]
    (tmp_path / "embedded.png").write_bytes(base64.b64decode(data))
    with Image.open(tmp_path / "embedded.png") as embedded:
        assert embedded.size == (WIDTH_PX, WIDTH_PX // 3)


def test_a_report_without_images_is_published_as_it_is(tmp_path):
    (tmp_path / "report.md").write_text("no curves")
    assert embed_curves(tmp_path / "report.md") == "no curves"


def test_the_deployments_take_no_lease_of_the_server_and_the_night_has_a_time_zone():
    listed = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    laptop, nightly = listed
    assert (laptop["name"], nightly["name"]) == ("laptop", "nightly")
    for deployment in listed:
        assert deployment["entrypoint"] == "flows/generalization.py:generalization"
        assert "concurrency_limit" not in deployment  # its lease ends a run with the server
    assert "schedules" not in laptop
    assert {"cron", "timezone"} <= set(nightly["schedules"][0])


def test_prefect_keeps_its_state_in_the_project_and_sends_nothing():
    command = [str(Path(sys.executable).with_name("prefect")), "config", "view"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=True)
    shown = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert shown["PREFECT_HOME"].startswith("'.prefect'")
    assert shown["PREFECT_PROFILES_PATH"].startswith("'.prefect/profiles.toml'")
    assert shown["PREFECT_SERVER_ANALYTICS_ENABLED"].startswith("'False'")
    assert shown["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"].startswith("'120'")


@pytest.fixture
def run_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    servers.RUN.mkdir()
    return tmp_path / servers.RUN


def test_stop_leaves_a_process_alone_that_took_over_a_number(run_folder):
    with subprocess.Popen(["sleep", "98766"]) as stranger:
        (run_folder / "prefect.pid").write_text(f"{stranger.pid} 1.0\n")
        servers.stop()
        assert stranger.poll() is None
        stranger.kill()
    assert not (run_folder / "prefect.pid").exists()


def test_stop_ends_what_the_pid_file_names(run_folder):
    leader = subprocess.Popen(["sleep", "98767"], start_new_session=True)
    started = psutil.Process(leader.pid).create_time()
    (run_folder / "mlflow.pid").write_text(f"{leader.pid} {started}\n")
    servers.stop()
    assert not psutil.pid_exists(leader.pid)


def test_a_port_of_somebody_else_is_refused(run_folder):
    with socket.socket() as other:
        other.bind((servers.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"got port {port}.*\n.*free port for prefect"):
            servers.start(mlflow_port=port, prefect_port=port)
    assert list(run_folder.glob("*.pid")) == []
