"""A vLLM server on loopback, in a process group of its own, as long as a block runs.

It runs in an environment of its own, since vLLM pins other versions of torch and transformers than
training needs; `python` names that environment's Python (docs/vllm.md).
"""

import logging
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from vlm_r1.errors import ModelError
from vlm_r1.processes import end_with_parent, process_group

logger = logging.getLogger(__name__)

MODULE = "vllm.entrypoints.openai.api_server"  # the command `vllm` is missing in some builds
POLL_S, TOLD_S = 0.2, 10.0  # pause between two looks at a starting server, and between log lines
END_S = 1.0  # a server that breaks a connection may be about to end
ANSWER_TIMEOUT_S = 1800.0  # of one request, waiting in the server's queue included
SHOWN_LINES, SHOWN_CAUSES = 15, 3  # of the log of a server that died
CAUSE = re.compile(r"\b\w+Error: ")  # vLLM's last line refers to the root cause "above"
# What torchrun and this environment tell their own processes
OWN_VARIABLES = {"PYTHONPATH", "OMP_NUM_THREADS", "RANK", "WORLD_SIZE"}
OWN_PREFIXES = ("LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")


@dataclass(frozen=True)
class VllmServer:
    """A running server; `post` sends a request to its OpenAI-compatible API."""

    process: subprocess.Popen
    client: httpx.Client
    log: Path

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The server's answer as JSON; may be called from several threads.

        Raises:
            ModelError: it died, refuses the request or does not answer.
        """
        try:
            response = self.client.post(path, json=body)
        except httpx.HTTPError as error:
            raise self.failed(f"{type(error).__name__} {error}") from None
        if response.status_code != httpx.codes.OK:
            raise self.failed(f"status {response.status_code}: {response.text[:500]}")
        return response.json()

    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        try:
            return self.client.get("/health", timeout=POLL_S).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def failed(self, what: str) -> ModelError:
        """An error that shows the end of the server's log."""
        try:
            state = f"ended with exit code {self.process.wait(END_S)}"
        except subprocess.TimeoutExpired:
            state = "still runs"
        lines = self._log_lines()
        causes = [line for line in lines[:-SHOWN_LINES] if CAUSE.search(line)][:SHOWN_CAUSES]
        shown = "\n  ".join([*causes, *lines[-SHOWN_LINES:]])
        return ModelError(
            got=f"vLLM's server: {what}; it {state}. Causes in {self.log}, and its end:\n  {shown}",
            need="a server that answers every question",
            because="a row without an answer would change the score",
            do="see the log; evaluate.engine: transformers needs no server",
        )

    def last_line(self) -> str:
        """The beginning of what the server told last."""
        return next(iter(self._log_lines()[-1:]), "")[:120]

    def _log_lines(self) -> list[str]:
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()


@contextmanager
def vllm_server(
    python: Path, arguments: list[str], log: Path, environment: dict[str, str], timeout_s: float
) -> Iterator[VllmServer]:
    """Start a server, wait until it is ready, and end it with all its processes.

    If this process is killed, the kernel ends the server (Linux).

    Args:
        arguments: of the server, without host and port.
        log: file for what it prints; its folder is the server's working directory.
        environment: variables to set besides those of this process.
        timeout_s: until it must be ready.

    Raises:
        ModelError: it ends, or is not ready in time.
    """
    port = _free_port()
    command = [str(python), "-m", MODULE, *arguments, "--host", "127.0.0.1", "--port", str(port)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as output,
        process_group(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,  # where `python -m` looks first: a folder vllm would hide the package
            env=server_environment() | environment,
            preexec_fn=end_with_parent,
        ) as process,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            timeout=ANSWER_TIMEOUT_S,
            limits=httpx.Limits(max_connections=None),
            # One connection a request: the pool may close an idle one just as another thread takes
            # it up (5 of 8,000 requests of 64 threads), even where it is to keep none.
            headers={"Connection": "close"},
            trust_env=False,  # no proxy to loopback
        ) as client,
    ):
        server = VllmServer(process, client, log)
        _wait_until_ready(server, timeout_s)
        yield server


def server_environment() -> dict[str, str]:
    """This process's variables without those that describe it to torchrun or to its Python."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in OWN_VARIABLES and not name.startswith(OWN_PREFIXES)
    }


def _wait_until_ready(server: VllmServer, timeout_s: float) -> None:
    started = told = time.monotonic()
    while not server.is_ready():
        waited_s = time.monotonic() - started
        if server.process.poll() is not None:
            raise server.failed("it did not start")
        if waited_s > timeout_s:
            raise server.failed(
                f"it was not ready after evaluate.vllm.start_timeout_s {timeout_s:g}"
            )
        if time.monotonic() - told > TOLD_S:
            told = time.monotonic()
            logger.info(
                "vLLM starts: %.0f of at most %g s  %s", waited_s, timeout_s, server.last_line()
            )
        time.sleep(POLL_S)
    logger.info("vLLM is ready after %.0f s", time.monotonic() - started)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
