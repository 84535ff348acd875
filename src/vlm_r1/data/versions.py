"""Which bytes a dataset is made of: what DVC compares, and what the report names.

`version_of` describes a dataset's source files before anybody reads them (stage `version`);
`InputVersion` what a trainer or an evaluation reads of it afterwards.
"""

import hashlib
import json
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict

from vlm_r1.config import Dataset, Params
from vlm_r1.data.archives import read_manifest
from vlm_r1.data.records import records_digest
from vlm_r1.errors import DataError
from vlm_r1.folders import whole_folder
from vlm_r1.paths import INPUTS, VERSIONS, inputs_file

READERS = {"training": ("train",), "evaluation": ("validation", "id", "ood")}  # -> roles


class DatasetVersion(BaseModel):
    """A dataset's source files.

    Attributes:
        records, images: file and folder, as params.yaml names them.
        images_archive: what the pictures were unpacked from; null for a folder of somebody's own.
        images_sha256: of that archive, else of every file in the folder with its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    records: str
    records_sha256: str
    images: str
    images_archive: str | None
    images_sha256: str


class InputVersion(BaseModel):
    """What is read of a prepared dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    records_digest: str
    images: str
    images_sha256: str


def version_of(dataset: Dataset, root: Path) -> DatasetVersion:
    """The version of a dataset's files as they lie on disk.

    Raises:
        DataError: the records or the picture folder are missing.
    """
    images, archive = images_version(root / dataset.images)
    return DatasetVersion(
        records=dataset.records,
        records_sha256=_file_sha256(root / dataset.records),
        images=dataset.images,
        images_archive=archive,
        images_sha256=images,
    )


def read_versions(root: Path) -> dict[str, DatasetVersion]:
    """Dataset -> its version as stage `version` wrote it; empty where it never ran."""
    files = sorted((root / VERSIONS).glob("*.json"))
    return {file.stem: DatasetVersion.model_validate_json(file.read_bytes()) for file in files}


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


def images_version(folder: Path) -> tuple[str, str | None]:
    """SHA-256 of a picture folder, and the archive that it comes from.

    Raises:
        DataError: there is no such folder.
    """
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest.sha256, manifest.archive
    if not folder.is_dir():
        raise _missing(folder)
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{file.relative_to(folder).as_posix()}\0{_file_sha256(file)}\n".encode())
    return total.hexdigest(), None


def _file_sha256(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        raise _missing(file) from None


def _missing(path: Path) -> DataError:
    return DataError(
        got=f"{path}: not there",
        need="the records and the picture folder that params.yaml names",
        because="a dataset without its files has no version",
        do="`vlm-r1 fetch` its archives, or correct datasets.<name> in params.yaml",
    )
