"""Starts and stops a Prefect server, an MLflow server and a worker on loopback.

Each runs in a session of its own, with .run/<name>.pid and .run/<name>.log. .prefect/profiles.toml
gives the server's address to every Prefect command in this project.
Run from the project's root: `python -m tasks.servers start|stop`.
"""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated

import psutil
import typer
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed, StateType

from tasks.lifetime import WORKER_MARK
from tasks.stage import BIN
from vlm_r1.environment import DEFAULTS
from vlm_r1.errors import ConfigError
from vlm_r1.processes import end_all, end_group, with_variable

HOST = "127.0.0.1"
POOL = "laptop"
RUN = Path(".run")
PROFILES = Path(".prefect/profiles.toml")
START_TIMEOUT_S = 180.0  # a fresh database takes half a minute, on a busy machine longer

PrefectPort = Annotated[int, typer.Option(envvar="PREFECT_PORT")]
MlflowPort = Annotated[int, typer.Option(envvar="MLFLOW_PORT")]
app = typer.Typer(help=__doc__)


@app.command()
def start(prefect_port: PrefectPort = 4200, mlflow_port: MlflowPort = 5000) -> None:
    """Start what is not running, wait until it answers, and create the deployments."""
    api = f"http://{HOST}:{prefect_port}/api"
    environment = _environment() | {"PREFECT_API_URL": api}
    prefect_server = ["prefect", "server", "start", *_address(prefect_port)]
    _launch("prefect", prefect_server, environment, prefect_port)
    _launch("mlflow", mlflow_server(mlflow_port), environment, mlflow_port)
    _await_answer("prefect", f"{api}/health")
    _await_answer("mlflow", f"http://{HOST}:{mlflow_port}/health")
    PROFILES.write_text(f'active = "local"\n\n[profiles.local]\nPREFECT_API_URL = "{api}"\n')
    _prefect(environment, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    _prefect(environment, "--no-prompt", "deploy", "--all")
    if _running("worker") is None:
        _crash_orphans(api)
        _launch("worker", ["prefect", "worker", "start", "--pool", POOL], environment)
    typer.echo(
        f"Prefect  http://{HOST}:{prefect_port}\n"
        f"MLflow   http://{HOST}:{mlflow_port}\n"
        f"run      {BIN / 'prefect'} deployment run generalization/laptop --watch\n"
        "end      make stop"
    )


@app.command()
def stop() -> None:
    """Stop the processes that `start` started, the worker first."""
    for name in ("worker", "mlflow", "prefect"):
        process = _running(name)
        if process is not None:
            end_group(process.pid)
            typer.echo(f"ended {name} ({process.pid})")
        _pid_file(name).unlink(missing_ok=True)
        if name == "worker":
            end_all(_flow_processes())  # of a worker that was killed before
    PROFILES.unlink(missing_ok=True)


@app.command()
def mlflow(mlflow_port: MlflowPort = 5000) -> None:
    """Run MLflow alone in the foreground, until Ctrl-C."""
    command = mlflow_server(mlflow_port)
    os.execve(BIN / command[0], command, _environment())


def mlflow_server(port: int) -> list[str]:
    """The command of an MLflow server on the project's database, with one process."""
    home = Path(".mlflow").resolve()
    home.mkdir(exist_ok=True)
    return [
        *("mlflow", "server", "--workers", "1", *_address(port)),
        *("--backend-store-uri", f"sqlite:///{home}/mlflow.db"),
        *("--artifacts-destination", str(home / "artifacts")),
    ]


def _address(port: int) -> list[str]:
    return ["--host", HOST, "--port", str(port)]


def _launch(
    name: str, command: list[str], environment: dict[str, str], port: int | None = None
) -> None:
    if _running(name) is not None:
        return
    if port is not None:
        _require_free(name, port)
    RUN.mkdir(exist_ok=True)
    with (RUN / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    started = psutil.Process(process.pid).create_time()
    _pid_file(name).write_text(f"{process.pid} {started}\n")


def _running(name: str) -> psutil.Process | None:
    """The process of the pid file, or None if it has ended; its pid may be reused by now."""
    try:
        pid, started = _pid_file(name).read_text().split()
        process = psutil.Process(int(pid))
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None
    same = process.create_time() == float(started) and process.status() != psutil.STATUS_ZOMBIE
    return process if same else None


def _require_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise ConfigError(
                got=f"port {port}, which another program uses",
                need=f"a free port for {name}",
                because="runs would otherwise go to the other program's server",
                do=f"end that program, or `make server {name.upper()}_PORT=...`",
            ) from None


def _await_answer(name: str, url: str) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and _running(name) is not None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    log = RUN / f"{name}.log"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    raise SystemExit(f"{name} does not answer at {url}; the end of {log}:\n{tail}")


def _prefect(environment: dict[str, str], *arguments: str) -> None:
    """Run a Prefect command; its output is shown only if it fails."""
    command = [str(BIN / "prefect"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"`prefect {' '.join(arguments)}` failed:\n{done.stdout}{done.stderr}")


def _crash_orphans(api: str) -> None:
    """End what a dead worker has left, then mark its runs as crashed."""
    end_all(_flow_processes())
    unfinished = {"any_": [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]}
    orphans = FlowRunFilter.model_validate(
        {"state": {"type": unfinished}, "deployment_id": {"is_null_": False}}
    )
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=orphans):
            client.set_flow_run_state(run.id, Crashed(message="its worker is gone"), force=True)


def _flow_processes() -> list[psutil.Process]:
    """Flow runs of this project's workers; their stages end with them."""
    ours = with_variable("PREFECT_HOME", _environment()["PREFECT_HOME"])
    return [one for one in with_variable(WORKER_MARK) if one in ours]


def _environment() -> dict[str, str]:
    """This process's, completed; PREFECT_HOME is absolute, because a flow starts elsewhere."""
    return {
        **DEFAULTS,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # would start eight more processes
        **os.environ,
        "PREFECT_HOME": str(PROFILES.parent.resolve()),
        "PREFECT_PROFILES_PATH": str(PROFILES.resolve()),
    }


def _pid_file(name: str) -> Path:
    return RUN / f"{name}.pid"


if __name__ == "__main__":
    app()
