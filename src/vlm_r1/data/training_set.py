"""The training set: the prepared records of all datasets of role `train`, as one table."""

import os
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from vlm_r1 import paths
from vlm_r1.config import Params
from vlm_r1.data.records import join_records, read_records


class TrainingSet(NamedTuple):
    """Records in the order of params.yaml; `image` is relative to the folder `images`."""

    records: pd.DataFrame
    images: Path


def read_training_set(params: Params, root: Path) -> TrainingSet:
    """The records that passed, under the deepest folder that holds all datasets' images.

    Of a single dataset, the records are as they were prepared.

    Raises:
        DataError: a dataset's records are missing or broken.
    """
    folders = {name: root / params.datasets[name].images for name in params.train_datasets}
    parts = {name: read_records(root / paths.records_file(name)) for name in folders}
    if len(parts) == 1:
        return TrainingSet(*parts.values(), *folders.values())
    images = Path(os.path.commonpath(list(folders.values())))
    moved = [
        part.assign(image=_moved(part["image"], folders[name], images))
        for name, part in parts.items()
    ]
    return TrainingSet(join_records(moved), images)


def _moved(names: pd.Series, folder: Path, above: Path) -> list[str]:
    """Names relative to `folder`, as names relative to the folder `above` it."""
    prefix = folder.relative_to(above).as_posix()
    return names.tolist() if prefix == "." else [f"{prefix}/{name}" for name in names]
