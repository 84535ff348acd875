"""One training run as values: what it reads, under which terms, and where it writes."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vlm_r1 import paths
from vlm_r1.config import Method, Params
from vlm_r1.data.training_set import read_training_set
from vlm_r1.evaluation.search import with_choice
from vlm_r1.experiment import base_path, contract_of
from vlm_r1.files import part_of
from vlm_r1.rec.contract import TrainingContract


@dataclass(frozen=True)
class TrainingJob:
    """What a training run reads and writes.

    Attributes:
        params: with the seed of this run, what a search chose, and the task as the method is
            trained on it.
        base: folder or Hugging Face name of the model to start from.
        records: the training records, in the order of their files; boxes in original pixels.
        images: the folder that the records' image paths are relative to.
        output: the folder that a finished run leaves.
        root: the project's root, which file names in params are relative to.
    """

    method: Method
    params: Params
    contract: TrainingContract
    base: str | Path
    records: pd.DataFrame
    images: Path
    output: Path
    root: Path

    @property
    def work_folder(self) -> Path:
        """Where the run writes until its last step is done; it survives a kill."""
        return part_of(self.output)


def load_job(params: Params, root: Path, method: Method, seed: int | None = None) -> TrainingJob:
    """The job of training `method` in the project at `root`.

    Args:
        seed: one of experiment.seeds for a further run, models/<method>-<seed>.

    Raises:
        ConfigError: the experiment has no such seed.
        ResultError: the score of a search's candidate is missing.
    """
    seeded = with_choice(params.with_seed(seed), root, method)
    records, images = read_training_set(params, root)
    return TrainingJob(
        method=method,
        params=seeded.model_copy(update={"task": seeded.task_in_training(method)}),
        contract=contract_of(seeded, root, method),
        base=base_path(params, root),
        records=records,
        images=images,
        output=root / paths.run_dir(params.run_name(method, seed)),
        root=root,
    )
