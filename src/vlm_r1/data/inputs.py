"""data/inputs: digests of the data that training and evaluation read.

The stages after `prepare` depend on these files alone, so that a change of an evaluation set does
not make the trainings stale.
"""

from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict

from vlm_r1.config import Dataset
from vlm_r1.data.records import records_digest
from vlm_r1.data.versions import images_version
from vlm_r1.files import whole_folder, write_json
from vlm_r1.paths import INPUTS, inputs_file

ROLES_READ = {"training": ("train",), "evaluation": ("validation", "id", "ood")}


class InputVersion(BaseModel):
    """The parts of a prepared dataset that are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    records_digest: str
    images: str
    images_sha256: str


def write_inputs(
    datasets: dict[str, Dataset], root: Path, records: dict[str, pd.DataFrame]
) -> None:
    """Write data/inputs/training.json and data/inputs/evaluation.json.

    Args:
        records: dataset -> the records that passed validation.
    """
    with whole_folder(root / INPUTS) as folder:
        for consumer, roles in ROLES_READ.items():
            inputs = {
                name: InputVersion(
                    records_digest=records_digest(records[name]),
                    images=dataset.images,
                    images_sha256=images_version(root / dataset.images)[0],
                ).model_dump()
                for name, dataset in datasets.items()
                if dataset.role in roles
            }
            write_json(folder / inputs_file(consumer).name, inputs)
