"""Which bytes a dataset is made of: what DVC compares, and what the report names.

Written by stage `version`, before anybody reads the files.
"""

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from vlm_r1.config import Dataset
from vlm_r1.data.download.unzip import read_manifest
from vlm_r1.errors import DataError
from vlm_r1.paths import VERSIONS


class DatasetVersion(BaseModel):
    """A dataset's source files.

    Attributes:
        records, images: file and folder, as params.yaml names them.
        images_archive: what the images were unpacked from; null for a folder of somebody's own.
        images_sha256: of that archive, else of every file in the folder with its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    records: str
    records_sha256: str
    images: str
    images_archive: str | None
    images_sha256: str


def version_of(dataset: Dataset, root: Path) -> DatasetVersion:
    """The version of a dataset's files as they lie on disk.

    Raises:
        DataError: the records or the image folder are missing.
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


def images_version(folder: Path) -> tuple[str, str | None]:
    """SHA-256 of an image folder, and the archive that it comes from.

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
        need="the records and the image folder that params.yaml names",
        because="a dataset without its files has no version",
        do="`vlm-r1 fetch` its archives, or correct datasets.<name> in params.yaml",
    )
