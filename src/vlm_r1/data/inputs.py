"""data/inputs: digests of what training and evaluation read; their stages depend on it alone."""

import json
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict

from vlm_r1.config import Params
from vlm_r1.data.records import records_digest
from vlm_r1.data.versions import images_version
from vlm_r1.files import whole_folder
from vlm_r1.paths import INPUTS, inputs_file

READERS = {"training": ("train",), "evaluation": ("validation", "id", "ood")}  # -> roles


class InputVersion(BaseModel):
    """What is read of a prepared dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    records_digest: str
    images: str
    images_sha256: str


def write_inputs(params: Params, root: Path, records: dict[str, pd.DataFrame]) -> None:
    """Write data/inputs, which the stages after `prepare` depend on: a file a group of readers.

    Args:
        records: dataset -> the records that passed.
    """
    with whole_folder(root / INPUTS) as folder:
        for readers, roles in READERS.items():
            inputs = {
                name: InputVersion(
                    records_digest=records_digest(records[name]),
                    images=dataset.images,
                    images_sha256=images_version(root / dataset.images)[0],
                ).model_dump()
                for name, dataset in params.datasets.items()
                if dataset.role in roles
            }
            text = json.dumps(inputs, indent=1) + "\n"
            (folder / inputs_file(readers).name).write_text(text, encoding="utf-8")
