"""Where every file of an experiment lies, relative to the project's root."""

import re
from pathlib import Path

DRAWN = Path("data/drawn")
PREPARED = Path("data/prepared")
MODELS = Path("models")
RESULTS = Path("results")
REPORT = Path("reports/generalization")
PROMPTS = Path("reports/prompts")
SELECTION = Path("reports/selection.json")
COMPLETIONS = Path(".cache/completions")  # may be removed at any time


def records_file(dataset: str) -> Path:
    """A dataset's validated records."""
    return PREPARED / dataset / "records.parquet"


def run_dir(run: str) -> Path:
    """A training run's checkpoints, log and cost; `run` as `Params.run_name` has it."""
    return MODELS / run


def checkpoint_dir(run: str, step: int) -> Path:
    """One checkpoint of a training run."""
    return run_dir(run) / f"checkpoint-{step}"


def result_file(run: str, dataset: str, step: int) -> Path:
    """One unit, (training run, dataset, step)."""
    return RESULTS / run / dataset / f"step-{step}.json"


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint folder or a result file."""
    match = re.search(r"(\d+)(?:\.json)?$", path.name)
    if match is None:
        raise ValueError(f"got {path}, need a name that ends in a step")
    return int(match.group(1))
