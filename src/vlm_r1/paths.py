"""Where every file of an experiment lies, relative to the project's root."""

import re
from pathlib import Path

DRAWN = Path("data/drawn")
RAW = Path("data/raw")  # archives as fetched, each with its .dvc file
UNPACKED = Path("data/unpacked")  # what they hold; rebuilt from RAW, not tracked
VERSIONS = Path("data/versions")
INPUTS = Path("data/inputs")
PREPARED = Path("data/prepared")
MODELS = Path("models")
RESULTS = Path("results")
REPORT = Path("reports/generalization")
PROMPTS = Path("reports/prompts")
SELECTION = Path("reports/selection.json")
COMPLETIONS = Path(".cache/completions")  # may be removed at any time
IMAGES = Path(".cache/images.sqlite")  # what images were like; may be removed at any time


def records_file(dataset: str) -> Path:
    """A dataset's validated records."""
    return PREPARED / dataset / "records.parquet"


def version_file(dataset: str) -> Path:
    """Which bytes a dataset is made of, before anybody reads it."""
    return VERSIONS / f"{dataset}.json"


def inputs_file(readers: str) -> Path:
    """What `training` or `evaluation` reads, as digests: their stages depend on this alone."""
    return INPUTS / f"{readers}.json"


def validation_file(dataset: str) -> Path:
    """The verdict on a dataset; validation.html beside it is its page."""
    return PREPARED / dataset / "validation.json"


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
