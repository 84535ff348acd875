"""Digests of a dataset's source files, which DVC compares and the report shows.

Stage `version` writes them before any other stage reads the files.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from vlm_r1.config import Dataset
from vlm_r1.data.download.unzip import read_manifest
from vlm_r1.errors import DataError
from vlm_r1.files import sha256_of_file, sha256_of_files
from vlm_r1.paths import VERSIONS


class DatasetVersion(BaseModel):
    """A dataset's source files.

    Attributes:
        records, images: file and folder, as params.yaml names them.
        images_archive: the archive that the images were unpacked from; None for any other folder.
        images_sha256: of that archive, else of all files in the folder and their names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    records: str
    records_sha256: str
    images: str
    images_archive: str | None
    images_sha256: str


def version_of(dataset: Dataset, root: Path) -> DatasetVersion:
    """The version of a dataset's files on disk.

    Raises:
        DataError: the records or the image folder are missing.
    """
    images, archive = images_version(root / dataset.images)
    return DatasetVersion(
        records=dataset.records,
        records_sha256=_records_sha256(root / dataset.records),
        images=dataset.images,
        images_archive=archive,
        images_sha256=images,
    )


def read_versions(root: Path) -> dict[str, DatasetVersion]:
    """Dataset -> version, as stage `version` wrote it; empty if the stage never ran."""
    files = sorted((root / VERSIONS).glob("*.json"))
    return {file.stem: DatasetVersion.model_validate_json(file.read_bytes()) for file in files}


def images_version(folder: Path) -> tuple[str, str | None]:
    """SHA-256 of an image folder, and the archive it was unpacked from, if any.

    Raises:
        DataError: there is no such folder.
    """
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest.sha256, manifest.archive
    if not folder.is_dir():
        raise _missing(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sha256_of_files({path.relative_to(folder).as_posix(): path for path in files}), None


def _records_sha256(file: Path) -> str:
    try:
        return sha256_of_file(file)
    except OSError:
        raise _missing(file) from None


def _missing(path: Path) -> DataError:
    return DataError(
        got=f"{path}: not there",
        need="the records and the image folder that params.yaml names",
        because="the dataset cannot be identified without them",
        do="`vlm-r1 fetch` its archives, or correct datasets.<name> in params.yaml",
    )
