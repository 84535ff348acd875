"""data/inputs: what training and evaluation read of the data, as digests.

Their stages depend on these files and not on the section `datasets`, so that a new test dataset
does not make the trainings stale.
"""

from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict

from vlm_r1.config import Dataset, Role
from vlm_r1.data.records import records_digest
from vlm_r1.data.versions import images_version
from vlm_r1.files import whole_folder, write_json
from vlm_r1.paths import INPUTS, inputs_file

ROLES_READ = {
    "training": ("train",),
    "search": ("validation",),
    "evaluation": ("validation", "id", "ood"),
}


class InputVersion(BaseModel):
    """What is read of a prepared dataset.

    Attributes:
        role: the dataset's, which results and report state.
        images: folder as params.yaml names it; its files have the digest `images_sha256`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    records_digest: str
    images: str
    images_sha256: str


def write_inputs(
    datasets: dict[str, Dataset], root: Path, records: dict[str, pd.DataFrame]
) -> None:
    """Write data/inputs/{training,search,evaluation}.json: dataset -> `InputVersion`.

    Args:
        records: dataset -> the records that passed validation.
    """
    versions = {name: images_version(root / name)[0] for name in _image_folders(datasets)}
    with whole_folder(root / INPUTS) as folder:
        for consumer, roles in ROLES_READ.items():
            inputs = {
                name: InputVersion(
                    role=dataset.role,
                    records_digest=records_digest(records[name]),
                    images=dataset.images,
                    images_sha256=versions[dataset.images],
                ).model_dump()
                for name, dataset in datasets.items()
                if dataset.role in roles
            }
            write_json(folder / inputs_file(consumer).name, inputs)


def _image_folders(datasets: dict[str, Dataset]) -> set[str]:
    """Each folder once: datasets of COCO's images share one of 83,000 files."""
    return {dataset.images for dataset in datasets.values()}
