"""One stage of dvc.yaml as a Prefect task: DVC decides whether it runs, Prefect shows its log.

Prefect caches nothing, because a cached state would hide a stale stage.
"""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.lifetime import current
from vlm_r1.environment import DEFAULTS
from vlm_r1.errors import ConfigError
from vlm_r1.processes import process_group

BIN = Path(sys.executable).parent  # not resolved, so that it is the virtual environment's
TAIL_LINES = 20  # of a failed stage's output, repeated in the error


class StageFailedError(RuntimeError):
    """A stage's command failed; the message has the stage's name and its last lines."""


@task(cache_policy=NO_CACHE, task_run_name="{stage}")
def run_stage(stage: str) -> float:
    """Bring one stage up to date and log its output line by line.

    Run one stage at a time: DVC locks what a running stage reads and writes.

    Args:
        stage: a stage's name in dvc.yaml, as `evaluate@sft`.

    Returns:
        Its duration in seconds.

    Raises:
        ConfigError: called from within a DVC stage.
        StageFailedError: DVC or the stage's command failed.
    """
    _require_outside_of_dvc(stage)
    started_s = time.monotonic()
    code, last = run_logged("dvc", "--wait-for-lock", "repro", "--single-item", stage)
    if code != 0:
        raise StageFailedError(f"stage {stage} ended with code {code}; its last lines:\n{last}")
    return time.monotonic() - started_s


def run_logged(program: str, *arguments: str) -> tuple[int, str]:
    """Run a program of this environment, log its output; returns its exit code and last lines."""
    logger = get_run_logger()
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    command = [str(BIN / program), *arguments]
    run = current()
    with (
        process_group(
            command,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[run.held.fileno()] if run else [],
        ) as process,
        run.stage(process.pid) if run else nullcontext(),
    ):
        for line in _lines(process):
            logger.info(line)
            tail.append(line)
        return process.wait(), "\n".join(tail)


def is_up_to_date() -> bool:
    """True if no stage is stale. Takes about a second."""
    command = [str(BIN / "dvc"), "status", "--quiet"]
    return subprocess.run(command, env=_environment(), check=False).returncode == 0


def _require_outside_of_dvc(stage: str) -> None:
    outer = os.environ.get("DVC_STAGE")
    if outer is not None:
        raise ConfigError(
            got=f"stage {stage} started from within DVC's stage {outer}",
            need="a flow that starts DVC, not the other way round",
            because=f"DVC holds the locks of {outer} until its command ends, so both would wait",
            do="call the library in the stage's command, or unset DVC_STAGE",
        )


def _environment() -> dict[str, str]:
    """This process's environment, completed, with the programs of this Python first on PATH."""
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath)])
    return {**DEFAULTS, **os.environ, "PATH": path}


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Lines of the output; of a progress bar that redraws its line, the last state."""
    assert process.stdout is not None  # it is a pipe
    for raw in process.stdout:
        line = raw.decode("utf-8", errors="replace").rstrip().rsplit("\r", 1)[-1]
        if line:
            yield line
