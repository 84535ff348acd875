"""Facts about image files: each is opened once, in parallel threads, and cached for later runs."""

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
from vlm_r1.data.validation.perceptual_hash import perceptual_hash
from vlm_r1.errors import DataError

TABLE = "images_2"  # count up whenever `inspect` changes: all files are then inspected again
SAME_FAMILY = {"MPO": "JPEG"}  # MPO: a JPEG followed by further images, as phones write it
COMMIT_EVERY = 500  # images

log = logging.getLogger(__name__)


class ImageFacts(NamedTuple):
    """Facts about one image file; if there is a fault, the rest may be None.

    Attributes:
        fault: why the file cannot be used, without its folder; None if it can.
        width, height: of the upright image that `open_image` returns.
        mode: Pillow's mode of the stored pixels.
        suffix_fault: the actual format, if the file's suffix stands for another.
        turned: whether EXIF swaps width and height.
        phash: see `perceptual_hash`; None if the image is too uniform for one.
    """

    fault: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    suffix_fault: str | None = None
    turned: bool | None = None
    sha256: str | None = None
    phash: bytes | None = None


def inspect(path: Path) -> ImageFacts:
    """Decode an image as training does and describe it. A bad file becomes a fault, no error."""
    try:
        image, digest = open_image(path), image_digest(path)
    except DataError as error:
        return ImageFacts(fault=error.got.replace(str(path), path.name))
    with Image.open(path) as file:
        mode, kind = file.mode, file.format or ""
        orientation = file.getexif().get(ORIENTATION)
    return ImageFacts(
        width=image.width,
        height=image.height,
        mode=mode,
        suffix_fault=_suffix_fault(path, SAME_FAMILY.get(kind, kind)),
        turned=orientation in QUARTER_TURNS,
        sha256=digest,
        phash=perceptual_hash(image),
    )


def _suffix_fault(path: Path, kind: str) -> str | None:
    suffix = path.suffix.lower()
    if not suffix or Image.registered_extensions().get(suffix) == kind:
        return None
    return f"{kind} in a file named {path.name}"


def inspect_all(paths: Iterable[Path], cache: Path) -> dict[Path, ImageFacts]:
    """Facts of every distinct file; unchanged files (size, time, inode) come from `cache`.

    Pillow releases the GIL while decoding, so threads use all cores. If the run is interrupted,
    the facts found so far are kept. The cache is an SQLite file that may be deleted at any time.
    """
    stamps = {path: _stamp(path) for path in dict.fromkeys(paths)}
    cache.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(cache, timeout=60)) as db:
        _create_table(db)
        known = _load(db, stamps)
        fresh = [path for path in stamps if path not in known]
        for number, (path, facts) in enumerate(_inspect_parallel(fresh), start=1):
            known[path] = facts
            _save(db, path, stamps[path], facts)
            if number % COMMIT_EVERY == 0:
                db.commit()
        db.commit()
    log.debug("%d images, %d of them inspected anew", len(known), len(fresh))
    return known


def _inspect_parallel(paths: list[Path]) -> Iterator[tuple[Path, ImageFacts]]:
    workers = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool:
        # delay: no bar if it takes less than two seconds
        facts = tqdm(pool.map(inspect, paths), total=len(paths), unit="image", delay=2)
        yield from zip(paths, facts, strict=True)


def _stamp(path: Path) -> str:
    """A string that changes whenever the file does; "" if there is no file (never cached)."""
    try:
        stat = path.stat()
    except OSError:
        return ""
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}:{PIL.__version__}"


def _create_table(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode=WAL")
    columns = ", ".join(ImageFacts._fields)
    db.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (path PRIMARY KEY, stamp, {columns})")


def _load(db: sqlite3.Connection, stamps: dict[Path, str]) -> dict[Path, ImageFacts]:
    known = {}
    query = f"SELECT {', '.join(ImageFacts._fields)} FROM {TABLE} WHERE path = ? AND stamp = ?"
    for path, stamp in stamps.items():
        row = db.execute(query, (str(path.resolve()), stamp)).fetchone()
        if row is not None:
            facts = ImageFacts(*row)
            # SQLite has no booleans
            known[path] = facts._replace(turned=facts.turned and bool(facts.turned))
    return known


def _save(db: sqlite3.Connection, path: Path, stamp: str, facts: ImageFacts) -> None:
    if stamp:
        marks = ", ".join("?" * (2 + len(facts)))
        values = (str(path.resolve()), stamp, *facts)
        db.execute(f"INSERT OR REPLACE INTO {TABLE} VALUES ({marks})", values)
