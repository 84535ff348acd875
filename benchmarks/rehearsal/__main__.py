"""Rehearses a whole experiment on real photos: make rehearsal PHOTOS=folder

A random Qwen2.5-VL of 53 million parameters, several hundred visual tokens an image, two processes
with ZeRO-3: full fine-tuning, then adapters, each through the ordinary commands in a folder of its
own. Prints measured memory of every process beside `vlm-r1 plan`'s, how often photos were opened,
and the longest time without a line of output.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.rehearsal import commands, probe, project
from vlm_r1.config import standalone

METHODS = ("sft", "grpo")
SUFFIXES = (".jpg", ".jpeg", ".png")
TOLERANCE = 0.25  # of the planned peak, as in tests/test_memory_plan.py
MIB_PER_GIB = 1024
# as profiles/lora-1gpu.yaml: adapters, with tower and projector frozen, and checkpointing
ADAPTERS = {
    "lora": standalone.LORA.model_dump(),
    "freeze_vision": True,
    "freeze_projector": True,
    "gradient_checkpointing": True,
}
HEADER = (
    "| weights | command | seconds | CPU seconds | longest silence, s "
    "| peak of each process, MiB | planned, MiB | measured / planned | opens / images |"
)
RULE = "|---|---|--:|--:|--:|--:|--:|--:|--:|"
VARIANTS: dict[str, dict[str, Any]] = {"full": {}, "LoRA": ADAPTERS}


@dataclass(frozen=True)
class Row:
    """One line of the table: a command of one variant, and the plan for it if it is a training."""

    variant: str
    command: str
    seen: commands.Seen
    planned_mib: float | None = None


def main() -> None:
    """Run both variants and print the table; exit code 1 if a plan is off by over a quarter."""
    options = _options()
    photos = sorted(f for f in options.photos.iterdir() if f.suffix.lower() in SUFFIXES)
    started = time.monotonic()
    with TemporaryDirectory(prefix="rehearsal-") as folder:
        work = Path(folder)
        parameters = project.make_base(work / "base")
        site = probe.site_folder(work / "site")
        rows = []
        for variant in options.variants:
            for row in rehearse(variant, work / variant, photos, site):
                print(f"{HEADER}\n{table_line(row)}", flush=True)
                rows.append(row)
    minutes = (time.monotonic() - started) / 60
    print(f"\n{parameters / 1e6:.0f} million parameters, {len(photos)} photos, {minutes:.0f} min\n")
    print("\n".join([HEADER, RULE, *map(table_line, rows)]))
    if not all(plan_holds(row) for row in rows):
        raise SystemExit(1)


def rehearse(variant: str, root: Path, photos: list[Path], site: Path) -> Iterator[Row]:
    """Run the pipeline's commands one after the other."""
    project.make_project(root, photos, root.parent / "base", VARIANTS[variant])
    planned = _planned_mib(root, site)
    for number, words in enumerate(pipeline()):
        seen = commands.run(words, root, site, root / f"notes/{number}")
        yield Row(
            variant,
            " ".join(words[1:]),
            seen,
            planned.get(words[-1]) if words[1] in METHODS else None,
        )


def pipeline() -> Iterator[list[str]]:
    """The stages of dvc.yaml that photos need, in its order."""
    for dataset in project.SHARES:
        yield ["stage", "version", dataset]
    yield ["stage", "prepare"]
    for method in METHODS:
        yield ["stage", method]
    for method in METHODS:
        yield ["stage", "evaluate", method]
    yield ["stage", "prompts"]
    yield ["stage", "report"]


def _planned_mib(root: Path, site: Path) -> dict[str, float]:
    """Each method's planned peak, in MiB."""
    seen = commands.run(["plan", "--json"], root, site, root / "notes/plan")
    methods = json.loads(seen.output[seen.output.index("{") :])["methods"]
    return {name: found["per_gpu_gib"]["peak"] * MIB_PER_GIB for name, found in methods.items()}


def plan_holds(row: Row) -> bool:
    """Whether the highest measured peak lies within `TOLERANCE` of the planned one."""
    if row.planned_mib is None:
        return True
    return abs(max(row.seen.peaks_mib) / row.planned_mib - 1) <= TOLERANCE


def table_line(row: Row) -> str:
    """The row as a line of a Markdown table."""
    seen = row.seen
    peaks = ", ".join(f"{peak:.0f}" for peak in seen.peaks_mib)
    planned = ratio = opens = ""
    if row.planned_mib is not None:
        planned = f"{row.planned_mib:.0f}"
        ratio = f"{max(seen.peaks_mib) / row.planned_mib:.2f}"
    if seen.opens:
        opens = f"{sum(seen.opens.values())} / {len(seen.opens)}"
    times = (f"{seconds:.0f}" for seconds in (seen.seconds, seen.cpu_s, seen.silence_s))
    cells = [row.variant, f"`{row.command}`", *times, peaks, planned, ratio, opens]
    return f"| {' | '.join(cells)} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="folder of at least 8 photos")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
