"""Runs one ordinary command under the probe, and says what was seen."""

import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.rehearsal import probe
from benchmarks.rehearsal.project import ROOT
from vlm_r1.processes import end_with_parent, process_group

CLI = [sys.executable, "-m", "vlm_r1.cli"]
MIB = 1024  # kB


@dataclass(frozen=True)
class Seen:
    """What one command did.

    Attributes:
        cpu_s: of all its processes together.
        peaks_mib: of every process that held a model: its highest resident memory, less what it
            held before the model.
        opens: photo -> how often it was opened, by all processes.
        silence_s: the longest time without a line of output.
    """

    seconds: float
    cpu_s: float
    silence_s: float
    peaks_mib: list[float]
    opens: dict[str, int]
    output: str


def run(words: list[str], root: Path, site: Path, notes: Path) -> Seen:
    """Run `vlm-r1 WORDS` in the project at `root`, and show its output.

    Args:
        notes: a new folder for the probe's lines.

    Raises:
        SystemExit: the command failed.
    """
    notes.mkdir(parents=True)
    search_path = os.pathsep.join(map(str, (site, ROOT / "src", ROOT)))
    environment = os.environ | {"PYTHONPATH": search_path, probe.FOLDER: str(notes)}
    # a warning is no progress, and torch and DeepSpeed print one at nearly every collective call
    environment |= {"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)  # the project's own file, no server
    started, cpu_before = time.monotonic(), _children_cpu_s()
    with process_group(
        [*CLI, *words],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=end_with_parent,
    ) as process:
        assert process.stdout is not None
        output, silence_s = _follow(process.stdout)
        process.wait()
    if process.returncode:
        raise SystemExit(f"vlm-r1 {' '.join(words)} ended with {process.returncode}")
    peaks_mib, opens = read_notes(notes)
    cpu_s = _children_cpu_s() - cpu_before
    return Seen(time.monotonic() - started, cpu_s, silence_s, peaks_mib, opens, output)


def _children_cpu_s() -> float:
    """CPU seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _follow(stream: IO[str]) -> tuple[str, float]:
    """All output, shown as it comes, and the longest time between two lines, start and end."""
    lines: list[str] = []
    silence_s, last = 0.0, time.monotonic()
    while line := stream.readline():
        print(line, end="", flush=True)
        lines.append(line)
        now = time.monotonic()
        silence_s, last = max(silence_s, now - last), now
    return "".join(lines), max(silence_s, time.monotonic() - last)


def read_notes(folder: Path) -> tuple[list[float], dict[str, int]]:
    """Peaks of the processes that held a model, in MiB, and how often each photo was opened."""
    peaks_mib: list[float] = []
    opens: Counter[str] = Counter()
    for file in sorted(folder.glob("*.jsonl")):
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        opens.update(line["opened"] for line in lines if "opened" in line)
        before = [line["before_model_kb"] for line in lines if "before_model_kb" in line]
        peak = [line["peak_kb"] for line in lines if "peak_kb" in line]
        if before and peak:
            peaks_mib.append((max(peak) - before[0]) / MIB)
    return peaks_mib, dict(opens)
