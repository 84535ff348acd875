"""Runs the benchmarks one after the other, each in a process of its own: make bench

Writes benchmarks/results.json and the table in docs/performance.md. Each figure is a ratio of two
ways in one run; a target that is not met is shown as such.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results.json"
PAGE = ROOT / "docs/performance.md"
BEGIN, END = "<!-- made by `make bench` -->", "<!-- end -->"
STEP = "benchmarks.grpo_step"
COMMANDS = [
    f"{STEP} --model laptop",
    f"{STEP} --model laptop --generations 2 16 --rounds 3",
    f"{STEP} --model middle --rounds 3",
    f"{STEP} --model middle --memory",
    "benchmarks.attention",
    "benchmarks.evaluation",
    "benchmarks.evaluation --images 10 --phrases 7 --enlarge 4 --rounds 3",
    "benchmarks.rewards",
    "benchmarks.data --share 0.003 --rounds 1",
    "benchmarks.data --rounds 1",
]
# The end of a figure's name -> (at most | at least, ratio)
TARGETS = {
    "laptop, 8 completions: step": ("<=", 0.5),
    "laptop, 8 completions: rollout": ("<=", 0.5),
    "laptop, 8 completions: policy": ("<=", 0.5),
    "middle, 8 completions: step": ("<=", 0.3),
    "middle, 8 completions: rollout": ("<=", 0.35),
    "middle, 8 completions: policy": ("<=", 0.25),
    "middle, 8 completions: peak memory": ("<=", 0.4),
    "cost of one more completion": ("<=", 0.45),
    "84 px: speed-up over VLM-R1's loop, batch of 4": (">=", 4.0),
    "336 px: speed-up over VLM-R1's loop, batch of 4": (">=", 2.5),
    "rewards: speed-up over VLM-R1's way": (">=", 50.0),
    "read 1 of 321,327 rows, speed-up over a loop over rows": (">=", 10.0),
    "validate 1 of 321,327 rows, speed-up over a loop over rows": (">=", 10.0),
}


def main() -> None:
    """Run all, or those whose command contains `--only`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of a command of the table")
    only = parser.parse_args().only
    figures = {one["command"]: one["figures"] for one in _earlier(only)}
    for command in (command for command in COMMANDS if only in command):
        print(f"\npython -m {command}", flush=True)
        figures[command] = run(command)
        write([{"command": c, "figures": figures[c]} for c in COMMANDS if c in figures])


def write(benchmarks: list[dict[str, Any]]) -> None:
    """Write the figures so far, and the page's table."""
    results = {"machine": machine(), "benchmarks": benchmarks}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_table(page, results), encoding="utf-8")


def run(command: str) -> list[dict[str, Any]]:
    """The figures of one benchmark: the lines of JSON that it prints; the others are shown."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command.split()],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    figures = []
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith('{"name"'):
            figures.append(json.loads(line))
    if process.wait() or not figures:
        raise SystemExit(f"python -m {command}: exit code {process.returncode}, no figures")
    return figures


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    packages = ("torch", "transformers", "trl")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": 1,
        "dtype": "float32",
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def with_table(page: str, results: dict[str, Any]) -> str:
    """The page with the table of these results between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(results)}\n{END}{after}"


def table(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    about = results["machine"]
    lines = [
        f"{about['date']}, {about['cpu']}, {about['threads']} thread, {about['dtype']}, Python "
        f"{about['python']}, torch {about['torch']}, transformers {about['transformers']}, "
        f"TRL {about['trl']}.",
    ]
    for one in results["benchmarks"]:
        lines += ["", f"`OMP_NUM_THREADS=1 python -m {one['command']}`", ""]
        lines += ["| figure | ratio | single rounds | target |", "|---|--:|--:|---|"]
        lines += [_line(figure) for figure in one["figures"]]
    return "\n".join(lines)


def _line(figure: dict[str, Any]) -> str:
    found, low, high = (figure[key] for key in ("ratio", "low", "high"))
    target = next((TARGETS[end] for end in TARGETS if figure["name"].endswith(end)), None)
    rounds, said = f"{low:.2f} to {high:.2f}", verdict(found, target)
    return f"| {figure['name']} | {found:.2f} | {rounds} | {said} |"


def verdict(found: float, target: tuple[str, float] | None) -> str:
    """Whether a ratio meets its target; "" where it has none."""
    if target is None:
        return ""
    kind, limit = target
    met = found <= limit if kind == "<=" else found >= limit
    words = {"<=": "at most", ">=": "at least"}[kind]
    return f"{words} {limit:g}: {'met' if met else '**not met**'}"


def _earlier(only: str) -> list[dict[str, Any]]:
    """Benchmarks of the last run, which a run of `--only` some of them keeps."""
    if not only or not RESULTS.exists():
        return []
    return list(json.loads(RESULTS.read_text(encoding="utf-8"))["benchmarks"])


if __name__ == "__main__":
    main()
