"""Stage prepare: params.datasets -> data/prepared/<dataset>/ with records and their validation.

Also data/inputs, which stands for what training and evaluation read.
"""

import logging
from dataclasses import replace
from pathlib import Path

from vlm_r1.config import Dataset, Params
from vlm_r1.data.inputs import write_inputs
from vlm_r1.data.orientation import upright_records
from vlm_r1.data.readers import SEVERAL_FILES, read
from vlm_r1.data.readers.base import Reading, Source
from vlm_r1.data.records import write_records
from vlm_r1.data.validation.outcome import DatasetUnderValidation, Verdict, validate, write_files
from vlm_r1.data.validation.published_counts import PUBLISHED
from vlm_r1.errors import ConfigError, DataError
from vlm_r1.files import whole_folder
from vlm_r1.paths import IMAGES, PREPARED

log = logging.getLogger(__name__)


def run(params: Params, root: Path) -> None:
    """Read, validate and write every dataset.

    Each gets validation.json and validation.html, and quarantine.jsonl if rows are set aside;
    records.parquet only those that pass.

    Raises:
        ConfigError: a dataset is of several files, or names published counts that there are not.
        DataError: a file cannot be read at all (nothing is written then), or a dataset fails.
    """
    candidates = [_read(name, params, root) for name in params.datasets]
    verdicts = validate(candidates, params.train_dataset, params.validation, root / IMAGES)
    with whole_folder(root / PREPARED) as folder:
        for name, verdict in verdicts.items():
            _write(folder / name, verdict)
    _require_pass(verdicts)
    write_inputs(params, root, {name: verdict.records for name, verdict in verdicts.items()})


def _read(name: str, params: Params, root: Path) -> DatasetUnderValidation:
    dataset = params.datasets[name]
    _require_one_file(name, dataset)
    source = Source(
        path=root / dataset.records,
        name=dataset.records,
        dataset=name,
        split=dataset.split,
        role=dataset.role,
        images=root / dataset.images,
    )
    if dataset.published is not None and dataset.published not in PUBLISHED:
        raise ConfigError(
            got=f"datasets.{name}.published: {dataset.published}",
            need=f"one of {', '.join(PUBLISHED)}",
            because="rows are counted against what the authors of a set say",
            do="correct the name, or leave it out",
        )
    reading = read(dataset.format, source)
    if dataset.exif == "ignored":
        reading = _upright(reading, source.images)
    return DatasetUnderValidation(name, dataset.role, reading, source.images, dataset.published)


def _require_one_file(name: str, dataset: Dataset) -> None:
    """DVC watches the file that `records` names: what lies beside it could change unseen.

    Raises:
        ConfigError: the format reads several files.
    """
    if dataset.format in SEVERAL_FILES:
        raise ConfigError(
            got=f"datasets.{name}.format: {dataset.format}, which reads several files",
            need="one file of records in the pipeline",
            because="a change in a file beside it would run nothing again, and nobody would know",
            do=f"`vlm-r1 convert --from {dataset.format} {dataset.records} --to vlm-r1 --out FILE`"
            " and name FILE, with format vlm-r1",
        )


def _upright(reading: Reading, images: Path) -> Reading:
    return replace(reading, records=upright_records(reading.records, images))


def _write(folder: Path, verdict: Verdict) -> None:
    write_files(folder, verdict)
    if verdict.passed:
        write_records(folder / "records.parquet", verdict.records)
    log.info(
        "%s: %d rows, %d set aside, %s",
        verdict.dataset.name,
        verdict.dataset.reading.rows,
        len(verdict.set_aside),
        "pass" if verdict.passed else "fail",
    )


def _require_pass(verdicts: dict[str, Verdict]) -> None:
    failures = [
        f"{name}: {line}"
        for name, verdict in verdicts.items()
        if not verdict.passed
        for line in verdict.failures()
    ]
    if failures:
        raise DataError(
            got="; ".join(failures),
            need="datasets that meet every expectation",
            because="no number from broken data can be trusted",
            do=f"read {PREPARED}/<dataset>/validation.html, then correct the source",
        )
