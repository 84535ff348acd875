"""Stage unpack: data/raw/<source>.zip -> data/unpacked/<source>/, for one of params.sources."""

import logging
from pathlib import Path

from vlm_r1.data.download.unzip import unpack
from vlm_r1.paths import RAW, UNPACKED

log = logging.getLogger(__name__)


def run(root: Path, source: str) -> None:
    """Unpack one archive, unless its folder already holds this version of it.

    Raises:
        DataError: the archive is missing, damaged or unsafe.
    """
    manifest = unpack(root / RAW / f"{source}.zip", root / UNPACKED / source)
    log.info("%s: %d files, %d bytes", source, manifest.files, manifest.unpacked_bytes)
