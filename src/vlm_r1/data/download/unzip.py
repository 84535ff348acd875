"""Unpack an untrusted zip archive: completely, inside its folder, and within bounds.

Every member is checked by the archive's directory before the first byte is written. When members
are read, zipfile returns no more bytes than declared and checks their CRC.
"""

import logging
import lzma
import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from vlm_r1.errors import DataError, one_line
from vlm_r1.files import sha256_of_file, whole_folder

log = logging.getLogger(__name__)

MANIFEST = "MANIFEST.json"
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),  # damaged
    *(NotImplementedError, RuntimeError, OSError),  # an unknown method, a member twice, a full disk
)


@dataclass(frozen=True)
class Bounds:
    """Limits for an archive; COCO train2014 has 82,783 members and 13.5 GB."""

    members: int = 500_000
    unpacked_bytes: int = 100 * 10**9
    ratio: int = 100  # unpacked / packed bytes; JSON reaches 20


class Manifest(BaseModel):
    """Which archive a folder was unpacked from; every subfolder holds a copy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    archive: str
    sha256: str
    files: int
    unpacked_bytes: int


BOUNDS = Bounds()


def unpack(archive: Path, folder: Path, bounds: Bounds = BOUNDS) -> Manifest:
    """Unpack `archive` as `folder`, replacing it; does nothing if it holds this archive already.

    Raises:
        DataError: the archive is missing, damaged or no zip; a member would leave the folder, is a
            link or device, is encrypted or occurs twice; or it exceeds the bounds or the disk.
            `folder` stays as it was.
    """
    digest = _digest(archive)
    unpacked = read_manifest(folder)
    if unpacked is not None and unpacked.sha256 == digest:
        log.info("%s: unpacked already", archive.name)
        return unpacked
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _checked_members(archive, opened.infolist(), bounds)
            manifest = Manifest(
                archive=archive.name,
                sha256=digest,
                files=len(members),
                unpacked_bytes=sum(member.file_size for member in members),
            )
            _require_space(archive, folder, manifest.unpacked_bytes)
            with whole_folder(folder) as part:
                _extract(opened, members, part, archive.name)
                _write_manifests(part, manifest)
    except BROKEN as error:
        raise _refused(archive, one_line(error) or type(error).__name__) from None
    return manifest


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of an unpacked folder, None if there is none."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def _digest(archive: Path) -> str:
    try:
        return sha256_of_file(archive)
    except OSError as error:
        raise _refused(archive, error.strerror or str(error)) from None


def _checked_members(
    archive: Path, members: list[zipfile.ZipInfo], bounds: Bounds
) -> list[zipfile.ZipInfo]:
    """The members that are files.

    Raises:
        DataError: a member is unsafe, or the archive exceeds the bounds.
    """
    if len(members) > bounds.members:
        raise _refused(archive, f"{len(members):,} members, above {bounds.members:,}")
    for member in members:
        fault = _unsafe(member)
        if fault is not None:
            raise _refused(archive, f"member {member.filename!r} {fault}")
    files = [member for member in members if not member.is_dir()]
    unpacked = sum(member.file_size for member in files)
    packed = archive.stat().st_size  # not the members' own statements, which may be false
    if unpacked > bounds.unpacked_bytes:
        raise _refused(archive, f"{unpacked:,} bytes unpacked, above {bounds.unpacked_bytes:,}")
    if unpacked > bounds.ratio * packed:
        raise _refused(archive, f"{unpacked:,} bytes out of {packed:,}: an archive bomb")
    return files


def _unsafe(member: zipfile.ZipInfo) -> str | None:
    """Why a member is refused, None if it is safe; by its raw name, which zipfile shortens."""
    name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or ".." in parts or parts[0] == "/" or ":" in parts[0] or "\0" in name:
        return "leaves the folder"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link" if stat.S_ISLNK(kind) else "is neither a file nor a folder"
    return "is encrypted" if member.flag_bits & 0x1 else None


def _require_space(archive: Path, folder: Path, needed: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise _refused(archive, f"{needed:,} bytes unpacked, {free:,} free")


def _extract(
    opened: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path, name: str
) -> None:
    for member in tqdm(members, desc=name, unit=" files", disable=None):
        target = folder / member.filename.replace("\\", "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(member) as source, target.open("xb") as file:  # x: no member twice
            shutil.copyfileobj(source, file, 1 << 20)


def _write_manifests(folder: Path, manifest: Manifest) -> None:
    text = manifest.model_dump_json(indent=1) + "\n"
    for directory in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        with (directory / MANIFEST).open("x", encoding="utf-8") as file:
            file.write(text)


def _refused(archive: Path, fault: str) -> DataError:
    return DataError(
        got=f"{archive}: {fault}",
        need="a whole zip archive of plain files, none of which leaves the folder",
        because="an archive from the net could overwrite files or fill the disk",
        do="fetch it again (`vlm-r1 fetch`), or repack its files",
    )
