"""Unpack a zip archive that nobody has vouched for: whole, inside its folder, and within bounds.

Every member is judged by the archive's own directory before the first byte is written. Members are
then read for no more bytes than declared, and zipfile checks their CRC.
"""

import hashlib
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

from vlm_r1.errors import DataError
from vlm_r1.files import whole_folder

log = logging.getLogger(__name__)

MANIFEST = "MANIFEST.json"
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),  # damaged
    *(NotImplementedError, RuntimeError, OSError),  # an unknown method, a member twice, a full disk
)


@dataclass(frozen=True)
class Bounds:
    """What an archive may grow to; COCO train2014 has 82,783 members and 13.5 GB."""

    members: int = 500_000
    unpacked_bytes: int = 100 * 10**9
    ratio: int = 100  # of unpacked to packed bytes; JSON reaches 20


class Manifest(BaseModel):
    """Which archive a folder was unpacked from; a copy lies in every folder of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    archive: str
    sha256: str
    files: int
    unpacked_bytes: int


BOUNDS = Bounds()


def unpack(archive: Path, folder: Path, bounds: Bounds = BOUNDS) -> Manifest:
    """Unpack `archive` as `folder`, which is replaced as a whole; does nothing if that is done.

    Raises:
        DataError: it is missing or no zip; a member would leave the folder, is a link or a device,
            is encrypted or is there twice; it exceeds the bounds, the disk, or is damaged. `folder`
            is then as it was.
    """
    digest = _digest(archive)
    done = read_manifest(folder)
    if done is not None and done.sha256 == digest:
        log.info("%s: unpacked already", archive.name)
        return done
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
                _extract(opened, members, part)
                _write_manifests(part, manifest)
    except BROKEN as error:
        raise _refused(archive, " ".join(str(error).split()) or type(error).__name__) from None
    return manifest


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of an unpacked folder, null where there is none."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def _digest(archive: Path) -> str:
    try:
        with archive.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise _refused(archive, error.strerror) from None


def _checked_members(
    archive: Path, members: list[zipfile.ZipInfo], bounds: Bounds
) -> list[zipfile.ZipInfo]:
    """The members that are files, once nothing speaks against any member."""
    if len(members) > bounds.members:
        raise _refused(archive, f"{len(members):,} members, above {bounds.members:,}")
    for member in members:
        fault = _fault_of(member)
        if fault is not None:
            raise _refused(archive, f"member {member.filename!r} {fault}")
    files = [member for member in members if not member.is_dir()]
    unpacked = sum(member.file_size for member in files)
    packed = archive.stat().st_size  # what members say of their packed size may be a lie
    if unpacked > bounds.unpacked_bytes:
        raise _refused(archive, f"{unpacked:,} bytes unpacked, above {bounds.unpacked_bytes:,}")
    if unpacked > bounds.ratio * packed:
        raise _refused(archive, f"{unpacked:,} bytes out of {packed:,}: an archive bomb")
    return files


def _fault_of(member: zipfile.ZipInfo) -> str | None:
    """What speaks against one member; the raw name counts, zipfile cuts some of it off."""
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


def _extract(opened: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path) -> None:
    for member in tqdm(members, desc=Path(opened.filename).name, unit=" files", disable=None):
        target = folder / member.filename.replace("\\", "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(member) as source, target.open("xb") as file:  # x: no member twice
            shutil.copyfileobj(source, file, 1 << 20)


def _write_manifests(folder: Path, manifest: Manifest) -> None:
    text = manifest.model_dump_json(indent=1) + "\n"
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        with (place / MANIFEST).open("x", encoding="utf-8") as file:
            file.write(text)


def _refused(archive: Path, fault: str) -> DataError:
    return DataError(
        got=f"{archive}: {fault}",
        need="a whole zip archive of plain files, none of which leaves the folder",
        because="an archive from the net may overwrite or fill the machine it is opened on",
        do="fetch it again (`vlm-r1 fetch`), or repack what is in it",
    )
