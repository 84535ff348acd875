"""Stage version: which bytes a dataset is made of -> data/versions/<dataset>.json."""

import logging
from pathlib import Path

from vlm_r1.config import Params
from vlm_r1.data.versions import version_of
from vlm_r1.errors import ConfigError
from vlm_r1.paths import version_file

log = logging.getLogger(__name__)


def run(params: Params, root: Path, dataset: str) -> None:
    """Write down the SHA-256 of a dataset's records and images.

    Raises:
        ConfigError: the parameters name no such dataset.
        DataError: the files are missing.
    """
    if dataset not in params.datasets:
        raise ConfigError(
            got=f"dataset {dataset!r}",
            need=f"one of: {', '.join(params.datasets)}",
            because="`datasets` in the parameters says which files a dataset consists of",
            do="name one of these, or add the dataset to params.yaml",
        )
    version = version_of(params.datasets[dataset], root)
    file = root / version_file(dataset)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(version.model_dump_json(indent=1) + "\n", encoding="utf-8")
    shown = (version.records_sha256, version.images_sha256)
    log.info("%s: records %.12s, images %.12s", dataset, *shown)
