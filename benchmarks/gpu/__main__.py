"""Checks on a GPU what a machine without one cannot show: make gpu-check

Needs torch, transformers, trl and peft with what they bring, pydantic, torchvision and this source
tree; at most 10 minutes on one GPU of 24 GB or more. Prints a table and writes JSON. Without a GPU
the checks that need one are shown as not run, and the others run with the tiny model. Exit code 1
if a check failed.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.gpu.outcome import Outcome, machine_text, report, run_check, table
from vlm_r1 import environment
from vlm_r1.config import load_params
from vlm_r1.launch import device_environment

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Run every check and print the table."""
    options = _options()
    gpus = count_gpus()
    launch = load_params(ROOT / "params.yaml").launch
    device = {"device": "cuda" if gpus else "cpu", "processes_per_node": 1}
    # before torch is loaded: one process, as the launcher starts it
    os.environ.update(device_environment(launch.model_copy(update=device)))
    found = check(options.only, gpus)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    outcomes = {name: Outcome(**outcome) for name, outcome in found["checks"].items()}
    print(f"\n{machine_text(found)}\n\n{table(outcomes)}")
    if any(outcome.verdict == "failed" for outcome in outcomes.values()):
        raise SystemExit(1)


def check(only: list[str], gpus: int) -> dict:
    """Run the checks whose names contain one of `only`, or all; gives a `report`."""
    import torch

    from benchmarks.gpu import checks, project

    started = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    card = torch.cuda.get_device_properties(0) if device == "cuda" else None
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        root = Path(folder)
        project.make_project(root, device, card.total_memory if card else 0)
        params = project.make_params(device)
        bench = checks.Bench(root, params, project.SIZE_PX[device], gpus)
        outcomes = {}
        for name, function in checks.all_checks(bench).items():
            if not only or any(word in name for word in only):
                outcomes[name] = run_check(function)
                print(f"{name}: {outcomes[name].verdict}, {outcomes[name].figure}", flush=True)
    return report(outcomes, card.name if card else None, time.monotonic() - started)


def count_gpus() -> int:
    """GPUs that the host's driver lists, whatever CUDA_VISIBLE_DEVICES says; loads no torch."""
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="words in the names of checks")
    parser.add_argument("--json", type=Path, default=Path("reports/gpu-check.json"))
    return parser.parse_args()


if __name__ == "__main__":
    environment.set_defaults()
    main()
