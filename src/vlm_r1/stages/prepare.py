"""Stage prepare: params.datasets -> data/prepared/<dataset>/ with records and their validation.

Also writes data/inputs, the digests that training and evaluation depend on.
"""

import logging
from dataclasses import replace
from pathlib import Path

from vlm_r1.config import Dataset, Params
from vlm_r1.data.inputs import write_inputs
from vlm_r1.data.orientation import upright_records
from vlm_r1.data.readers import SEVERAL_FILES, read
from vlm_r1.data.readers.base import InputFile
from vlm_r1.data.records import write_records
from vlm_r1.data.validation.outcome import DatasetUnderValidation, ValidationOutcome
from vlm_r1.data.validation.outcome_files import write_outcome
from vlm_r1.data.validation.published_counts import PUBLISHED
from vlm_r1.data.validation.validate import validate_datasets
from vlm_r1.errors import ConfigError, DataError
from vlm_r1.files import whole_folder
from vlm_r1.paths import IMAGES, PREPARED

log = logging.getLogger(__name__)


def run(params: Params, root: Path) -> None:
    """Read, validate and write every dataset.

    Each gets validation.json and validation.html, and quarantine.jsonl if rows are quarantined;
    records.parquet is written only for datasets that pass.

    Raises:
        ConfigError: a dataset's format spans several files, or it names unknown published counts.
        DataError: a file cannot be read at all (nothing is written then), or a dataset fails.
    """
    datasets = [_read(name, dataset, root) for name, dataset in params.datasets.items()]
    cache = root / IMAGES
    outcomes = validate_datasets(datasets, params.train_datasets, params.validation, cache)
    with whole_folder(root / PREPARED) as folder:
        for name, outcome in outcomes.items():
            _write(folder / name, outcome)
    _require_pass(outcomes)
    records = {name: outcome.records for name, outcome in outcomes.items()}
    write_inputs(params.datasets, root, records)


def _read(name: str, dataset: Dataset, root: Path) -> DatasetUnderValidation:
    _require_one_file(name, dataset)
    if dataset.published is not None and dataset.published not in PUBLISHED:
        raise ConfigError(
            got=f"datasets.{name}.published: {dataset.published}",
            need=f"one of {', '.join(PUBLISHED)}",
            because="the numbers of records are compared with the published ones of that name",
            do="correct the name, or leave it out",
        )
    images = root / dataset.images
    source = InputFile(
        path=root / dataset.records,
        name=dataset.records,
        dataset=name,
        split=dataset.split,
        role=dataset.role,
        images=images,
        sampling=dataset.sampling,
        accuracy_reward=dataset.accuracy_reward or "",
    )
    rows = read(dataset.format, source)
    if dataset.exif == "ignored":
        rows = replace(rows, records=upright_records(rows.records, images))
    return DatasetUnderValidation(name, dataset.role, rows, images, dataset.published)


def _require_one_file(name: str, dataset: Dataset) -> None:
    """Refuse formats that span several files: DVC watches only the file that `records` names.

    Raises:
        ConfigError: the format spans several files.
    """
    if dataset.format in SEVERAL_FILES:
        raise ConfigError(
            got=f"datasets.{name}.format: {dataset.format}, which reads several files",
            need="one file of records a dataset",
            because="a change in one of the other files would not run the stages again",
            do="name each file of rec.yaml as a dataset of its own with the role train; else "
            f"`vlm-r1 convert --from {dataset.format} {dataset.records} --to vlm-r1 --out FILE`"
            " and name FILE, with format vlm-r1",
        )


def _write(folder: Path, outcome: ValidationOutcome) -> None:
    write_outcome(folder, outcome)
    if outcome.passed:
        write_records(folder / "records.parquet", outcome.records)
    log.info(
        "%s: %d rows, %d quarantined, %s",
        outcome.dataset.name,
        outcome.dataset.rows.row_count,
        len(outcome.quarantined),
        "pass" if outcome.passed else "fail",
    )


def _require_pass(outcomes: dict[str, ValidationOutcome]) -> None:
    failures = [
        f"{name}: {line}"
        for name, outcome in outcomes.items()
        if not outcome.passed
        for line in outcome.failures()
    ]
    if failures:
        raise DataError(
            got="; ".join(failures),
            need="datasets that meet every expectation",
            because="results on faulty data cannot be trusted",
            do=f"read {PREPARED}/<dataset>/validation.html, then correct the source",
        )
