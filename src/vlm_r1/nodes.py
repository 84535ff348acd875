"""How the nodes of one run find each other: node 0 announces its start, the others wait for it.

Node 0 may prepare data or hash files for hours before it trains. Its announcement is a file in the
project's folder, which all nodes share. A node 0 that was killed leaves its file behind, and clocks
of machines differ, so neither the file nor its time says that node 0 is there: it keeps writing the
file, and the others look for a change.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from vlm_r1.errors import ConfigError
from vlm_r1.files import write_json

BEAT_S = 1.0  # between two writes of node 0, and two looks of another node
TELL_EVERY_S = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Meeting:
    """Where this node of a run meets the others.

    Attributes:
        file: node 0's announcement, in the folder that all nodes share.
        timeout_s: how long another node waits for it.
    """

    file: Path
    node_rank: int
    timeout_s: int


@contextmanager
def meet(meeting: Meeting) -> Iterator[str]:
    """Gives the id of this start of the run, equal on all nodes and new each time.

    Raises:
        ConfigError: node 0 has not started in time.
    """
    if meeting.node_rank == 0:
        with _announced(meeting.file) as run:
            yield run
    else:
        yield _wait_for_node_0(meeting)


@contextmanager
def _announced(file: Path) -> Iterator[str]:
    run, ended = uuid.uuid4().hex, threading.Event()

    def keep_writing() -> None:
        for beat in count():
            write_json(file, {"run": run, "beat": beat})
            if ended.wait(BEAT_S):
                return

    writer = threading.Thread(target=keep_writing, daemon=True)
    writer.start()
    try:
        yield run
    finally:
        ended.set()
        writer.join()
        file.unlink(missing_ok=True)


def _wait_for_node_0(meeting: Meeting) -> str:
    started = told = time.monotonic()
    logger.info("node %d: waiting for node 0", meeting.node_rank)
    before = _read(meeting.file)
    while (waited_s := time.monotonic() - started) < meeting.timeout_s:
        time.sleep(BEAT_S)
        now = _read(meeting.file)
        if before is not None and now not in (None, before):
            assert now is not None
            logger.info("node %d: node 0 has started", meeting.node_rank)
            return now["run"]
        before = now
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            limits = meeting.node_rank, waited_s, meeting.timeout_s
            logger.info("node %d: waiting for node 0, %.0f of %d s", *limits)
    raise ConfigError(
        got=f"no sign of node 0 in {meeting.file} for {meeting.timeout_s} s",
        need="node 0 at work in the same project folder, on a disk that all nodes share",
        because="all nodes train together",
        do="run `dvc repro` or `vlm-r1 launch` there, or raise launch.start_timeout_s",
    )


def _read(file: Path) -> dict[str, str] | None:
    """The announcement; None if there is none."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # no file, or on NFS one that is being replaced
        return None
