"""Fetch an archive into data/raw: download, verify, rename, track with DVC.

Can be interrupted at any point and run again: a partial download is continued, the final name
appears only once the file is complete and verified, and a file without its .dvc file gets one.
"""

import logging
import time
import zipfile
from pathlib import Path

from vlm_r1.data.download.catalog import Archive
from vlm_r1.data.download.dvc_import import dvc_file, read_import, record_import
from vlm_r1.data.download.resumable import TIMEOUT_S, discard_part, download, has_etag
from vlm_r1.errors import FetchError, TemporaryFetchError
from vlm_r1.files import part_of, sha256_of_file
from vlm_r1.paths import RAW

log = logging.getLogger(__name__)

FIRST_DELAY_S = 2.0  # before the second try; doubles with each further one


def fetch_with_retries(
    archive: Archive, root: Path, mirror: str | None, retries: int, timeout_s: float = TIMEOUT_S
) -> Path:
    """`fetch`, repeated after temporary faults; each retry is logged with its reason.

    Raises:
        FetchError: a permanent fault, or the last retry failed.
    """
    for attempt in range(retries):
        try:
            return fetch(archive, root, mirror, timeout_s)
        except TemporaryFetchError as error:
            delay_s = FIRST_DELAY_S * 2**attempt
            count = f"try {attempt + 2} of {retries + 1}"
            log.warning("%s: %s; %s in %.0f s", archive.name, error.got, count, delay_s)
            time.sleep(delay_s)
    return fetch(archive, root, mirror, timeout_s)


def fetch(
    archive: Archive, root: Path, mirror: str | None = None, timeout_s: float = TIMEOUT_S
) -> Path:
    """Path of the archive in data/raw, verified and tracked; downloads only what is missing.

    Verified against the SHA-256 in the catalog, else against the one recorded by the first fetch.

    Raises:
        TemporaryFetchError: a later try may succeed.
        FetchError: it will not; a file that is already there is not touched.
    """
    target, url = root / RAW / archive.file, archive.url(mirror)
    recorded = read_import(target)
    expected = archive.sha256 or (recorded.sha256 if recorded else None)
    if not target.exists():
        download(url, target, archive.size_bytes, timeout_s)
        _accept_part(target, url, expected)
    sha256 = sha256_of_file(target)
    if expected not in (None, sha256):
        raise _wrong_digest(str(target), sha256, expected, "move the file away and fetch it again")
    if recorded is not None and recorded.sha256 == sha256:
        log.info("%s: as recorded in %s", archive.file, dvc_file(target).relative_to(root))
    else:
        record_import(root, target, url, sha256, has_etag(url, timeout_s))
    return target


def _accept_part(target: Path, url: str, expected: str | None) -> None:
    """Rename the complete download; discard it if it is wrong, since resuming cannot help."""
    part = part_of(target)
    sha256 = sha256_of_file(part)
    if expected not in (None, sha256):
        discard_part(target)
        raise _wrong_digest(
            url,
            sha256,
            expected,
            "name another mirror; if a newer version is meant, delete the .dvc file of the old"
            " one, or correct the SHA-256 in src/vlm_r1/data/download/catalog.py",
        )
    if target.suffix == ".zip" and not zipfile.is_zipfile(part):
        discard_part(target)
        raise FetchError(
            got=f"{url}: an answer that is no zip archive",
            need="the archive",
            because="servers also answer with error or login pages",
            do="open the address in a browser, or name another mirror",
        )
    part.replace(target)
    discard_part(target)


def _wrong_digest(what: str, found: str, expected: str | None, do: str) -> FetchError:
    return FetchError(
        got=f"{what}: SHA-256 {found}",
        need=f"SHA-256 {expected}",
        because="earlier results would not apply to this file",
        do=do,
    )
