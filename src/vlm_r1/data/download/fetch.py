"""Fetch a declared source into data/raw: download, verify, rename, let DVC track it.

Killed at any moment, the same command goes on: bytes gather in a `.part`, the file appears under
its own name only whole and verified, and a file without its record is recorded.
"""

import hashlib
import logging
import time
import zipfile
from pathlib import Path

from vlm_r1.data.download.catalog import Source
from vlm_r1.data.download.dvc_import import dvc_file, read_import, record_import
from vlm_r1.data.download.resumable import (
    TIMEOUT_S,
    discard_part,
    download,
    names_version,
    part_file,
)
from vlm_r1.errors import FetchError, TemporaryFetchError
from vlm_r1.paths import RAW

log = logging.getLogger(__name__)

NEWER = (
    "name another mirror; if a newer version is meant, delete the .dvc file of the old one, or"
    " correct the SHA-256 that src/vlm_r1/data/download/catalog.py declares"
)

FIRST_DELAY_S = 2.0  # before the second try; doubled before each further one


def fetch_with_retries(
    source: Source,
    root: Path,
    mirror: str | None,
    retries: int,
    timeout_s: float = TIMEOUT_S,
    first_delay_s: float = FIRST_DELAY_S,
) -> Path:
    """`fetch`, tried again after temporary faults; every retry is logged with its reason.

    Raises:
        FetchError: a fault that stays, or one too many that pass.
    """
    for attempt in range(retries):
        try:
            return fetch(source, root, mirror, timeout_s)
        except TemporaryFetchError as error:
            delay_s = first_delay_s * 2**attempt
            log.warning(
                "%s: %s; try %d of %d in %.0f s",
                source.name,
                error.got,
                attempt + 2,
                retries + 1,
                delay_s,
            )
            time.sleep(delay_s)
    return fetch(source, root, mirror, timeout_s)


def fetch(
    source: Source, root: Path, mirror: str | None = None, timeout_s: float = TIMEOUT_S
) -> Path:
    """The source's file in data/raw, verified and tracked; downloads only what is missing.

    Verified against the declared SHA-256, else against the one recorded when it first came.

    Raises:
        TemporaryFetchError: a later try may succeed.
        FetchError: it will not; a file that is here already is left as it was.
    """
    target, url = root / RAW / source.file, source.url(mirror)
    recorded = read_import(target)
    trusted = source.sha256 or (recorded.sha256 if recorded else None)
    if not target.exists():
        download(url, target, source.size_bytes, timeout_s)
        _accept_part(target, url, trusted)
    sha256 = sha256_of(target)
    if trusted not in (None, sha256):
        raise _not_trusted(str(target), sha256, trusted, "move the file away and fetch it again")
    if recorded is not None and recorded.sha256 == sha256:
        log.info("%s: as recorded in %s", source.file, dvc_file(target).relative_to(root))
    else:
        record_import(root, target, url, sha256, names_version(url, timeout_s))
    return target


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _accept_part(target: Path, url: str, trusted: str | None) -> None:
    """Give the complete part its name, or discard it: what is wrong once is wrong for ever."""
    part = part_file(target)
    sha256 = sha256_of(part)
    if trusted not in (None, sha256):
        discard_part(target)
        raise _not_trusted(url, sha256, trusted, NEWER)
    if target.suffix == ".zip" and not zipfile.is_zipfile(part):
        discard_part(target)
        raise _no_zip(url)
    part.replace(target)
    discard_part(target)


def _not_trusted(what: str, found: str, trusted: str, do: str) -> FetchError:
    return FetchError(
        got=f"{what}: SHA-256 {found}",
        need=f"SHA-256 {trusted}",
        because="other bytes are other data, and no number of before would hold for them",
        do=do,
    )


def _no_zip(url: str) -> FetchError:
    return FetchError(
        got=f"{url}: an answer that is no zip archive",
        need="the archive",
        because="a server may answer with a page of its own, and that must not be trusted",
        do="open the address in a browser, or name another mirror",
    )
