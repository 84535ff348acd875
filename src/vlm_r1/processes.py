"""Process groups: a command started in its own session and ended with all its descendants.

`python -m vlm_r1.processes NAME VALUE` is a guardian: once its stdin closes, because the process
that started it is gone, it ends all processes with that environment variable.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

GRACE_S = 10.0  # between SIGTERM and SIGKILL
PR_SET_PDEATHSIG = 1  # Linux, <sys/prctl.h>


@contextmanager
def process_group(command: list[str], **options: Any) -> Iterator[subprocess.Popen]:
    """Run the command as leader of a new session; end the whole group when the block ends.

    The group also ends as soon as its leader does, because a child that outlives the leader keeps
    its output pipe open, and a reader of that pipe would wait forever.

    Args:
        options: passed on to `subprocess.Popen`.
    """
    with subprocess.Popen(command, start_new_session=True, **options) as leader:
        threading.Thread(target=_follow, args=(leader,), daemon=True).start()
        try:
            yield leader
        finally:
            end_group(leader.pid)


def end_group(leader_pid: int, grace_s: float = GRACE_S) -> None:
    """Send SIGTERM to the leader's group and all descendants, and SIGKILL after `grace_s`.

    torchrun puts its workers in groups of their own; they are found as descendants. Parents are
    signalled first: DVC would otherwise see its command die, and be ended while it writes its lock
    file.
    """
    end_all(_members(leader_pid), grace_s)
    for late in _members(leader_pid):
        _send(late.kill)


def end_all(processes: list[psutil.Process], grace_s: float = GRACE_S) -> None:
    """Send each SIGTERM, in this order, and SIGKILL to those that still run after `grace_s`."""
    for process in processes:
        _send(process.terminate)
    _, left = psutil.wait_procs(processes, timeout=grace_s)
    for process in left:
        _send(process.kill)


def with_variable(name: str, value: str | None = None) -> list[psutil.Process]:
    """Running processes of this user that have the environment variable, with any or this value."""
    return [
        process
        for process in psutil.process_iter()
        if (found := _environment(process).get(name)) is not None and value in (None, found)
    ]


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies; Linux only.

    A parent that is killed (SIGKILL, out of memory) cannot end its children itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _follow(leader: subprocess.Popen) -> None:
    leader.wait()
    end_group(leader.pid)


def _members(leader_pid: int) -> list[psutil.Process]:
    """Running processes of the group and their descendants, parents before children."""
    group = [process for process in psutil.process_iter() if _group_of(process) == leader_pid]
    family = dict.fromkeys(member for process in group for member in _with_children(process))
    return [process for process in family if _is_running(process)]


def _group_of(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:  # it has ended, or is another user's
        return {}


def _with_children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _send(signal_member: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):  # it ended first
        signal_member()


def _guard(name: str, value: str) -> None:
    sys.stdin.read()
    end_all(with_variable(name, value))


if __name__ == "__main__":
    _guard(*sys.argv[1:])
