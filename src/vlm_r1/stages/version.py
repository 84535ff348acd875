"""Stage version: SHA-256 of a dataset's records and images -> data/versions/<dataset>.json."""

import logging
from pathlib import Path

from vlm_r1.config import Params
from vlm_r1.data.versions import version_of
from vlm_r1.files import write_text
from vlm_r1.paths import version_file

log = logging.getLogger(__name__)


def run(params: Params, root: Path, dataset: str) -> None:
    """Write the digests of one dataset.

    Raises:
        DataError: its records or images are missing.
    """
    version = version_of(params.datasets[dataset], root)
    write_text(root / version_file(dataset), version.model_dump_json(indent=1))
    digests = (version.records_sha256, version.images_sha256)
    log.info("%s: records %.12s, images %.12s", dataset, *digests)
