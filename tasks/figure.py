"""`make figure`: VLM-R1's withdrawn comparison by its real cause, beside the fair one.

Works in .figure/, so that the project's own data, models and results stay as they are. Both
experiments have profiles/withdrawn.yaml; the fair one trains SFT on the task's own terms and shares
everything else with the first. What is there already is not made again: remove .figure/ to begin
anew. Run from the project's root: `python -m tasks.figure`.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import typer
import yaml

from vlm_r1.environment import DEFAULTS
from vlm_r1.errors import ConfigError

WORK = Path(".figure")
PROFILE = Path("profiles/withdrawn.yaml")
WITHDRAWN, FAIR = WORK / "withdrawn", WORK / "fair"
REPORT = Path("reports/generalization")
ENVIRONMENT = {**DEFAULTS, **os.environ}
SHARED = ("data", "models/grpo", ".cache")  # the fair one has links to these


def main() -> None:
    """Run both experiments and print their curves side by side."""
    root, started_s = Path.cwd(), time.monotonic()
    withdrawn = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    fair = withdrawn | {"sft": withdrawn["sft"] | {"own_terms": None}}
    base = {"models/base": root / "models/base"}
    open_folder(WITHDRAWN, withdrawn, base)
    for stage, output in stages_before_report(withdrawn):
        _run(WITHDRAWN, stage, output)
    refusal = _refused_report(WITHDRAWN)
    _run(WITHDRAWN, "report --allow-unfair", str(REPORT))
    open_folder(FAIR, fair, base | {name: root / WITHDRAWN / name for name in SHARED})
    for stage, output in stages_before_report(fair):
        _run(FAIR, stage, output)
    _run(FAIR, "report", str(REPORT))
    typer.echo(f"\n`vlm-r1 stage report` in {WITHDRAWN} refuses:\n{refusal}")
    for folder in (WITHDRAWN, FAIR):
        typer.echo(f"\n{folder / REPORT}/report.html\n" + _curves(folder))
    typer.echo(f"\n{time.monotonic() - started_s:.0f} s")


def stages_before_report(params: dict[str, Any]) -> list[tuple[str, str]]:
    """The stages before the report, in order, each with the output that shows it was run."""
    return [
        ("draw", "data/drawn"),
        *((f"version {name}", f"data/versions/{name}.json") for name in params["datasets"]),
        ("prepare", "data/prepared"),
        ("sft", "models/sft"),
        ("evaluate sft", "results/sft"),
        ("grpo", "models/grpo"),
        ("evaluate grpo", "results/grpo"),
        ("prompts", "reports/prompts"),
    ]


def open_folder(folder: Path, params: dict[str, Any], links: dict[str, Path]) -> None:
    """A project folder with these params and with links to what it shares.

    Raises:
        ConfigError: what is there was made with other params.
    """
    file = folder / "params.yaml"
    if file.exists() and yaml.safe_load(file.read_text(encoding="utf-8")) != params:
        raise ConfigError(
            got=f"{file}, which differs from {PROFILE}",
            need="outputs of one set of parameters",
            because="what is there already is not made again",
            do=f"rm -r {WORK}, and run `make figure` again",
        )
    for name, target in links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target, target_is_directory=True)
    file.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def _run(folder: Path, stage: str, output: str) -> None:
    """Run a stage in `folder`, unless its output is there."""
    if (folder / output).exists():
        return
    started_s = time.monotonic()
    subprocess.run(_command(stage), cwd=folder, env=ENVIRONMENT, check=True)
    typer.echo(f"{folder.name:10} {stage:22} {time.monotonic() - started_s:6.1f} s")


def _refused_report(folder: Path) -> str:
    """What the report says when it must refuse.

    Raises:
        ConfigError: it did not refuse.
    """
    done = subprocess.run(
        _command("report"), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True
    )
    if done.returncode == 0:
        raise ConfigError(
            got="a report over SFT and GRPO that were trained on different terms",
            need="a refusal",
            because=f"{PROFILE} gives SFT terms of its own",
            do="look into vlm_r1/rec/contract.py: no term of the contract names the difference",
        )
    return "\n".join(done.stderr.strip().splitlines()[-4:])


def _command(stage: str) -> list[str]:
    return [sys.executable, "-m", "vlm_r1.cli", "stage", *stage.split()]


def _curves(folder: Path) -> str:
    """A table of the report's curves: accuracy, and with coordinates corrected."""
    report = json.loads((folder / REPORT / "report.json").read_text(encoding="utf-8"))
    lines = [f"{'':24}{'step':>6}{'accuracy':>10}{'corrected':>11}"]
    lines += [
        f"{p['method']:6}{p['dataset']:18}{p['step']:6}{p['accuracy']:10.1f}"
        f"{p['corrected_accuracy']:11.1f}"
        for p in report["curves"]
    ]
    return "\n".join([*lines, report["verdict"]["text"]])


if __name__ == "__main__":
    main()
