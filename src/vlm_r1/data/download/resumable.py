"""A download that goes on where it was: HTTP Range guarded by If-Range, bounded in time.

`download` fills `<target>.part` beside the target and never touches the target itself. Beside it
lies `<target>.etag.part`, the server's validator of what the part belongs to; without a validator
a download starts anew. Nothing is retried here: who calls decides (and says so).
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

log = logging.getLogger(__name__)

TIMEOUT_S = 30.0  # to connect, and between two pieces of the answer
SLOWEST_BYTES_PER_S = 1024  # a server below it for TIMEOUT_S counts as stuck
LOG_EVERY_S = 30.0  # where there is no terminal for a bar
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
FULL = {errno.ENOSPC, errno.EDQUOT}


def part_file(target: Path) -> Path:
    """Where the bytes gather until all are there."""
    return target.with_name(target.name + ".part")


def download(url: str, target: Path, size_bytes: int | None, timeout_s: float = TIMEOUT_S) -> None:
    """Bring `part_file(target)` to its full length, from where an earlier call left it.

    Args:
        size_bytes: what the file must have, if that is known.

    Raises:
        TemporaryFetchError: no answer, a cut or stalled connection, a server's fault (HTTP 5xx).
        FetchError: anything that a second try would meet again: 404, a wrong length, a full disk.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _own_part(target) as part, _told(url), _client(timeout_s) as client:
        part.seek(0, os.SEEK_END)
        with client.stream("GET", url, headers=_range(target, part.tell())) as response:
            if response.status_code == 416 and _offered(response) == part.tell():
                return  # all there already
            total = _begin(response, target, part, size_bytes)
            _receive(response, part, total, timeout_s)
        part.flush()
        os.fsync(part.fileno())
        _require_length(url, part.tell(), total)


def names_version(url: str, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether the server gives the file an ETag (or Content-MD5), by which DVC sees an update.

    False also where it does not answer HEAD, as DVC needs.

    Raises:
        TemporaryFetchError: no answer, or a server's fault.
    """
    with _told(url), _client(timeout_s) as client:
        response = client.head(url)
        if response.status_code in TEMPORARY:
            response.raise_for_status()
        headers = response.headers
        return response.is_success and ("ETag" in headers or "Content-MD5" in headers)


def discard_part(target: Path) -> None:
    """Forget what was received, so that the next download starts anew."""
    _validator_file(target).unlink(missing_ok=True)
    part_file(target).unlink(missing_ok=True)


@contextmanager
def _own_part(target: Path) -> Iterator[BinaryIO]:
    """The part, open for appending, held by this process alone (the lock dies with it)."""
    with part_file(target).open("ab") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FetchError(
                got=f"{part_file(target)}, which another process is filling",
                need="one download of a file at a time",
                because="two would write into each other's bytes",
                do="wait for the other one",
            ) from None
        yield part


def _client(timeout_s: float) -> httpx.Client:
    # identity: the bytes of the file, with its own length, not a compressed copy of it
    headers = {"Accept-Encoding": "identity"}
    return httpx.Client(timeout=timeout_s, follow_redirects=True, headers=headers)


def _range(target: Path, have: int) -> dict[str, str]:
    """Ask for the rest only if the file is still the one that the part belongs to."""
    try:
        validator = _validator_file(target).read_text(encoding="ascii")
    except FileNotFoundError:
        return {}
    return {"Range": f"bytes={have}-", "If-Range": validator} if have else {}


def _begin(
    response: httpx.Response, target: Path, part: BinaryIO, size_bytes: int | None
) -> int | None:
    """Check what the server offers, and put the part where its bytes belong; the total, if told."""
    if response.status_code == 416 or not _continues(response, part.tell()):
        discard_part(target)
        raise _failed(TemporaryFetchError, str(response.url), "another range than asked for")
    response.raise_for_status()
    total = _offered(response)
    if size_bytes is not None and total is not None and total != size_bytes:
        raise _wrong_length(response.url, total, size_bytes)
    if response.status_code == 206:
        log.info("%s: going on at %s", target.name, f"{part.tell():,} bytes")
    else:
        if part.tell():
            log.info("%s: starting anew, the server's file is another one", target.name)
        _start_anew(response, target, part)
    _require_space(target, None if total is None else total - part.tell())
    return size_bytes if total is None else total


def _continues(response: httpx.Response, have: int) -> bool:
    """Whether a partial answer starts where the part ends; a whole one has nothing to continue."""
    start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return response.status_code != 206 or start == str(have)


def _start_anew(response: httpx.Response, target: Path, part: BinaryIO) -> None:
    # The old bytes go before the new validator comes: a kill in between must not join the two.
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
        for piece in response.iter_raw():
            part.write(piece)
            bar.update(len(piece))
            now_s = time.monotonic()
            if now_s - window_s > timeout_s:
                if part.tell() - window_bytes < SLOWEST_BYTES_PER_S * timeout_s:
                    raise httpx.ReadTimeout(f"below {SLOWEST_BYTES_PER_S} bytes/s")
                window_s, window_bytes = now_s, part.tell()
            if bar.disable and now_s - logged_s > LOG_EVERY_S:
                log.info("%s: %s of %s bytes", name, f"{part.tell():,}", f"{total or 0:,}")
                logged_s = now_s


def _offered(response: httpx.Response) -> int | None:
    """Length of the whole file, if the server tells."""
    whole = response.headers.get("Content-Range", "").rpartition("/")[2]
    if response.status_code in (206, 416):
        return int(whole) if whole.isdigit() else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _validator_file(target: Path) -> Path:
    return target.with_name(target.name + ".etag.part")


def _require_space(target: Path, missing_bytes: int | None) -> None:
    free = shutil.disk_usage(target.parent).free
    if missing_bytes is not None and missing_bytes > free:
        raise _disk_full(str(target), f"{free:,} bytes free, {missing_bytes:,} still to come")


def _require_length(url: str, received: int, total: int | None) -> None:
    if total is not None and received != total:
        raise _wrong_length(url, received, total)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Whatever goes wrong on the way becomes a `FetchError` that names the address."""
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
        if error.errno not in FULL:
            raise
        raise _disk_full(url, f"{error.strerror} while writing") from None


def _failed(kind: type[FetchError], url: str, fault: str) -> FetchError:
    again = "run the same command again: it goes on where it was"
    return kind(
        got=f"{url}: {fault}",
        need="the whole file from this server",
        because="a part of an archive is no data",
        do=again if kind is TemporaryFetchError else "correct the address, or name a mirror",
    )


def _wrong_length(url: object, found: int, size_bytes: int) -> FetchError:
    return FetchError(
        got=f"{url}: {found:,} bytes",
        need=f"{size_bytes:,} bytes",
        because="a file of another length is another file",
        do="name another mirror, or correct the size in src/vlm_r1/data/download/catalog.py",
    )


def _disk_full(what: str, fault: str) -> FetchError:
    return FetchError(
        got=f"{what}: {fault}",
        need="room for the whole file",
        because="what was received so far is kept, but the rest does not fit",
        do="free space and run the same command again: it goes on where it was",
    )
