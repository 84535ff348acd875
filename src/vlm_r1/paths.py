"""Paths of an experiment's files, relative to the project's root."""

import re
from pathlib import Path

DRAWN = Path("data/drawn")
RAW = Path("data/raw")  # fetched archives, each with its .dvc file
UNPACKED = Path("data/unpacked")  # their content; rebuilt from RAW, not tracked
VERSIONS = Path("data/versions")
INPUTS = Path("data/inputs")
PREPARED = Path("data/prepared")
MODELS = Path("models")
RESULTS = Path("results")
SEARCH = RESULTS / "search"  # what each candidate of a search scored
SEARCHED = MODELS / "search"  # a candidate's training, until it is scored
REPORT = Path("reports/generalization")
PROMPTS = Path("reports/prompts")
SELECTION = Path("reports/selection.json")
COMPLETIONS = Path(".cache/completions")  # a cache
VLLM_LOGS = Path(".cache/vllm")  # what vLLM's servers print, one file a checkpoint
IMAGES = Path(".cache/images.sqlite")  # a cache of image checks
NODES = Path(".cache/nodes")  # announcements of node 0


def records_file(dataset: str) -> Path:
    """A dataset's validated records."""
    return PREPARED / dataset / "records.parquet"


def version_file(dataset: str) -> Path:
    """Digests of a dataset's source files."""
    return VERSIONS / f"{dataset}.json"


def inputs_file(readers: str) -> Path:
    """Digests of the data that `training`, `search` or `evaluation` reads (data/inputs.py)."""
    return INPUTS / f"{readers}.json"


def validation_file(dataset: str) -> Path:
    """The outcome of a dataset's validation; validation.html in the same folder shows it."""
    return PREPARED / dataset / "validation.json"


def run_dir(run: str) -> Path:
    """Checkpoints, log and cost of a training run; `run` is a `Params.run_name`."""
    return MODELS / run


def checkpoint_dir(run: str, step: int) -> Path:
    """One checkpoint of a training run."""
    return run_dir(run) / f"checkpoint-{step}"


def result_file(run: str, dataset: str, step: int) -> Path:
    """The evaluation result of (training run, dataset, step)."""
    return RESULTS / run / dataset / f"step-{step}.json"


def candidate_file(method: str, learning_rate: float) -> Path:
    """The score of one candidate of a search; DVC writes numbers as Python does."""
    return SEARCH / method / f"{learning_rate}.json"


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint folder or a result file."""
    match = re.search(r"(\d+)(?:\.json)?$", path.name)
    if match is None:
        raise ValueError(f"got {path}, need a name that ends in a step")
    return int(match.group(1))
