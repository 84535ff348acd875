"""A download that resumes after an interruption, by HTTP Range guarded by If-Range.

`download` fills `<target>.part` and never touches the target. `<target>.etag.part` holds the
validator (ETag or Last-Modified) of the file that the partial download belongs to; without one, a
download starts over. Nothing is retried here: the caller decides.
"""

import errno
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import httpx
from tqdm import tqdm

from vlm_r1.errors import FetchError, InputError, TemporaryFetchError
from vlm_r1.files import part_of

log = logging.getLogger(__name__)

TIMEOUT_S = 30.0  # to connect, and between two chunks of the body
SLOWEST_BYTES_PER_S = 1024  # a server slower than this over TIMEOUT_S counts as stalled
LOG_EVERY_S = 30.0  # progress lines when there is no terminal for a bar
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def download(url: str, target: Path, size_bytes: int | None, timeout_s: float = TIMEOUT_S) -> None:
    """Complete `<target>.part`, starting from where an earlier call stopped.

    Args:
        size_bytes: the size the file must have, if known.

    Raises:
        TemporaryFetchError: no answer, a dropped or stalled connection, a server error (HTTP 5xx).
        FetchError: a fault that a second try would meet again: 404, a wrong size, a full disk.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked_part(target) as part, _as_fetch_errors(url), _client(timeout_s) as client:
        part.seek(0, os.SEEK_END)
        headers = _range_headers(target, part.tell())
        with client.stream("GET", url, headers=headers) as response:
            if response.status_code == 416 and _full_size(response) == part.tell():
                return  # the earlier call had received everything
            total = _prepare_part(response, target, part, size_bytes)
            _receive(response, part, total, timeout_s)
        part.flush()
        os.fsync(part.fileno())
        if total is not None and part.tell() != total:
            raise _wrong_size(url, part.tell(), total)


def has_etag(url: str, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether the server gives an ETag or Content-MD5, by which `dvc update` detects new versions.

    False also if it does not answer HEAD requests, which DVC needs.

    Raises:
        TemporaryFetchError: no answer, or a server error.
    """
    with _as_fetch_errors(url), _client(timeout_s) as client:
        response = client.head(url)
        if response.status_code in TEMPORARY:
            response.raise_for_status()
        headers = response.headers
        return response.is_success and ("ETag" in headers or "Content-MD5" in headers)


def discard_part(target: Path) -> None:
    """Delete what was received, so that the next download starts over."""
    _validator_file(target).unlink(missing_ok=True)
    part_of(target).unlink(missing_ok=True)


@contextmanager
def _locked_part(target: Path) -> Iterator[BinaryIO]:
    """The partial file, open for appending and locked; the OS frees the lock if we are killed."""
    with part_of(target).open("ab") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FetchError(
                got=f"{part_of(target)}, which another process is filling",
                need="one download of a file at a time",
                because="two would overwrite each other's bytes",
                do="wait for the other one",
            ) from None
        yield part


def _client(timeout_s: float) -> httpx.Client:
    # identity: a compressed transfer would have another length and could not be resumed
    headers = {"Accept-Encoding": "identity"}
    return httpx.Client(timeout=timeout_s, follow_redirects=True, headers=headers)


def _range_headers(target: Path, received: int) -> dict[str, str]:
    """Headers that ask for the rest, if the server still has the file that the part belongs to."""
    try:
        validator = _validator_file(target).read_text(encoding="ascii")
    except FileNotFoundError:
        return {}
    return {"Range": f"bytes={received}-", "If-Range": validator} if received else {}


def _prepare_part(
    response: httpx.Response, target: Path, part: BinaryIO, size_bytes: int | None
) -> int | None:
    """Check the response's headers and position `part` for its body; returns the full size."""
    if response.status_code == 416 or not _continues(response, part.tell()):
        discard_part(target)
        raise _failed(TemporaryFetchError, str(response.url), "another range than asked for")
    response.raise_for_status()
    total = _full_size(response)
    if size_bytes is not None and total is not None and total != size_bytes:
        raise _wrong_size(response.url, total, size_bytes)
    if response.status_code == 206:
        log.info("%s: resuming at %s bytes", target.name, f"{part.tell():,}")
    else:
        if part.tell():
            log.info("%s: starting over, the server's file has changed", target.name)
        _start_over(response, target, part)
    _require_space(target, 0 if total is None else total - part.tell())
    return size_bytes if total is None else total


def _continues(response: httpx.Response, received: int) -> bool:
    """Whether the body can follow what was received; a full response (200) replaces it."""
    start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return response.status_code != 206 or start == str(received)


def _start_over(response: httpx.Response, target: Path, part: BinaryIO) -> None:
    # First drop the old bytes, then write the new validator: killed in between, the next call must
    # not take the old bytes for a part of the new file.
    _validator_file(target).unlink(missing_ok=True)
    part.seek(0)
    part.truncate()
    etag = response.headers.get("ETag", "")
    validator = etag or response.headers.get("Last-Modified")
    if validator and not etag.startswith("W/"):
        _validator_file(target).write_text(validator, encoding="ascii")


def _receive(response: httpx.Response, part: BinaryIO, total: int | None, timeout_s: float) -> None:
    name = Path(part.name).stem
    window_s = logged_s = time.monotonic()
    window_bytes = part.tell()
    bar = tqdm(total=total, initial=part.tell(), desc=name, unit="B", unit_scale=True, disable=None)
    with bar:
        for chunk in response.iter_raw():
            part.write(chunk)
            bar.update(len(chunk))
            now_s = time.monotonic()
            if now_s - window_s > timeout_s:
                if part.tell() - window_bytes < SLOWEST_BYTES_PER_S * timeout_s:
                    raise httpx.ReadTimeout(f"below {SLOWEST_BYTES_PER_S} bytes/s")
                window_s, window_bytes = now_s, part.tell()
            if bar.disable and now_s - logged_s > LOG_EVERY_S:
                log.info("%s: %s of %s bytes", name, f"{part.tell():,}", f"{total or 0:,}")
                logged_s = now_s


def _full_size(response: httpx.Response) -> int | None:
    """Size of the whole file in bytes, None if the server does not state it."""
    if response.status_code in (206, 416):
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        size = response.headers.get("Content-Length", "")
    return int(size) if size.isdigit() else None


def _validator_file(target: Path) -> Path:
    return target.with_name(target.name + ".etag.part")


def _require_space(target: Path, missing_bytes: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if missing_bytes > free:
        raise _disk_full(str(target), f"{free:,} bytes free, {missing_bytes:,} still to come")


@contextmanager
def _as_fetch_errors(url: str) -> Iterator[None]:
    """Turn HTTP and disk errors into a `FetchError` that names the address."""
    try:
        yield
    except InputError:
        raise
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        kind = TemporaryFetchError if code in TEMPORARY else FetchError
        raise _failed(kind, url, f"HTTP {code} {error.response.reason_phrase}") from None
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects) as error:
        raise _failed(FetchError, url, str(error)) from None
    except httpx.HTTPError as error:
        fault = f"{type(error).__name__}: {error}".rstrip(": ")
        raise _failed(TemporaryFetchError, url, fault) from None
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise _disk_full(url, f"{error.strerror} while writing") from None


def _failed(kind: type[FetchError], url: str, fault: str) -> FetchError:
    retry = "run the same command again: it continues the download"
    return kind(
        got=f"{url}: {fault}",
        need="the whole file from this server",
        because="an incomplete archive cannot be used",
        do=retry if kind is TemporaryFetchError else "correct the address, or name a mirror",
    )


def _wrong_size(url: object, found: int, expected: int) -> FetchError:
    return FetchError(
        got=f"{url}: {found:,} bytes",
        need=f"{expected:,} bytes",
        because="a file of another length is another file",
        do="name another mirror, or correct the size in src/vlm_r1/data/download/catalog.py",
    )


def _disk_full(what: str, fault: str) -> FetchError:
    return FetchError(
        got=f"{what}: {fault}",
        need="room for the whole file",
        because="the rest of the file does not fit; what was received is kept",
        do="free space and run the same command again: it continues the download",
    )
