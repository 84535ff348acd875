"""What image files are like: opened once each, in parallel, and remembered for the next run."""

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import PIL
from PIL import Image
from tqdm import tqdm

from vlm_r1.data.images import ORIENTATION, QUARTER_TURNS, image_digest, open_image
from vlm_r1.data.validation.perceptual_hash import fingerprint
from vlm_r1.errors import DataError

TABLE = "images_1"  # a new number with every change of `inspect`: it looks at all files again
SAME_FAMILY = {"MPO": "JPEG"}  # a JPEG with further images behind it, as telephones write
COMMIT_EVERY = 500  # images

log = logging.getLogger(__name__)


class Finding(NamedTuple):
    """What one image file is like; after a fault, the rest may be unknown.

    Attributes:
        fault: why it cannot be used, without its folder; None if it can.
        width, height: upright, as `open_image` gives it.
        mode: Pillow's, as stored.
        suffix_fault: the format, where the file's suffix tells another.
        turned: whether EXIF swaps the stored sides.
        look: its fingerprint (`fingerprints`), unless it is of one tone.
    """

    fault: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    suffix_fault: str | None = None
    turned: bool | None = None
    sha256: str | None = None
    look: bytes | None = None


def inspect(path: Path) -> Finding:
    """Open an image as training does, to its end, and describe it. Never raises for a bad file."""
    try:
        image, digest = open_image(path), image_digest(path)
    except DataError as error:
        return Finding(fault=error.got.replace(str(path), path.name))
    with Image.open(path) as file:
        mode, kind = file.mode, SAME_FAMILY.get(file.format, file.format)
        orientation = file.getexif().get(ORIENTATION)
    return Finding(
        width=image.width,
        height=image.height,
        mode=mode,
        suffix_fault=_suffix_fault(path, kind),
        turned=orientation in QUARTER_TURNS,
        sha256=digest,
        look=fingerprint(image),
    )


def _suffix_fault(path: Path, kind: str) -> str | None:
    suffix = path.suffix.lower()
    if not suffix or Image.registered_extensions().get(suffix) == kind:
        return None
    return f"{kind} in a file named {path.name}"


def inspect_all(paths: Iterable[Path], cache: Path) -> dict[Path, Finding]:
    """Every distinct file's finding; unchanged files (size, time, inode) come from `cache`.

    Decoding leaves Python's lock, so that threads use all cores. What was found stays found if the
    run is stopped. The cache is an SQLite file that may be removed at any time.
    """
    stamps = {path: _stamp(path) for path in dict.fromkeys(paths)}
    cache.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(cache, timeout=60)) as db:
        _create(db)
        known = _recall(db, stamps)
        fresh = [path for path in stamps if path not in known]
        for number, (path, finding) in enumerate(_inspect_parallel(fresh), start=1):
            known[path] = finding
            _remember(db, path, stamps[path], finding)
            if number % COMMIT_EVERY == 0:
                db.commit()
        db.commit()
    log.debug("%d images, %d looked at", len(known), len(fresh))
    return known


def _inspect_parallel(paths: list[Path]) -> Iterator[tuple[Path, Finding]]:
    workers = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool:
        # A bar only where it takes a while.
        found = tqdm(pool.map(inspect, paths), total=len(paths), unit="image", delay=2)
        yield from zip(paths, found, strict=True)


def _stamp(path: Path) -> str:
    """Changes whenever the file does; empty where there is none (which is never remembered)."""
    try:
        stat = path.stat()
    except OSError:
        return ""
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}:{PIL.__version__}"


def _create(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode=WAL")
    columns = ", ".join(Finding._fields)
    db.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (path PRIMARY KEY, stamp, {columns})")


def _recall(db: sqlite3.Connection, stamps: dict[Path, str]) -> dict[Path, Finding]:
    known = {}
    query = f"SELECT {', '.join(Finding._fields)} FROM {TABLE} WHERE path = ? AND stamp = ?"
    for path, stamp in stamps.items():
        row = db.execute(query, (str(path.resolve()), stamp)).fetchone()
        if row is not None:
            finding = Finding(*row)
            known[path] = finding._replace(turned=finding.turned and bool(finding.turned))
    return known


def _remember(db: sqlite3.Connection, path: Path, stamp: str, finding: Finding) -> None:
    if stamp:
        marks = ", ".join("?" * (2 + len(finding)))
        values = (str(path.resolve()), stamp, *finding)
        db.execute(f"INSERT OR REPLACE INTO {TABLE} VALUES ({marks})", values)
