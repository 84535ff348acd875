"""Validation of one dataset, or of all datasets of an experiment and of what they share."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from vlm_r1.config import Validation
from vlm_r1.data.validation.great_expectations_runner import run_checks
from vlm_r1.data.validation.image_inspection import ImageFacts, inspect_all
from vlm_r1.data.validation.leakage import ImageSet, Kind, Leak, shared_images
from vlm_r1.data.validation.outcome import DatasetUnderValidation, ValidationOutcome
from vlm_r1.data.validation.suite import suite
from vlm_r1.data.validation.tables import record_table, row_table, split_table

Facts = Mapping[Path, ImageFacts]


def validate_datasets(
    datasets: list[DatasetUnderValidation], training: list[str], bounds: Validation, cache: Path
) -> dict[str, ValidationOutcome]:
    """The outcome for every dataset of an experiment, by name.

    Args:
        training: names of the training sets; the other datasets must not share their images, nor
            validation sets those of test sets.
        cache: SQLite file with the facts of images that were inspected before.
    """
    facts = inspect_datasets(datasets, cache)
    leaks = _leaks_by_dataset(datasets, training, bounds, facts)
    return {one.name: validate_dataset(one, bounds, facts, leaks[one.name]) for one in datasets}


def validate_dataset(
    dataset: DatasetUnderValidation, bounds: Validation, facts: Facts | None, leaks: list[Leak]
) -> ValidationOutcome:
    """The outcome for one dataset.

    Args:
        facts: of its images; None: only metadata is checked.
        leaks: images it shares with other datasets. A test set is never reduced: by
            `bounds.on_leak` a check fails, or the images leave the training or the validation set.
    """
    checks = suite(
        dataset.role,
        bounds,
        images_inspected=facts is not None,
        counts_published=dataset.published is not None,
    )
    tables = {
        "rows": row_table(dataset.rows),
        "records": record_table(dataset.rows, dataset.images, facts, leaks),
        "splits": split_table(dataset.name, dataset.rows, dataset.published),
    }
    return ValidationOutcome(dataset, bounds.on_failure, run_checks(checks, tables), leaks)


def inspect_datasets(datasets: list[DatasetUnderValidation], cache: Path) -> dict[Path, ImageFacts]:
    """Facts of every image file of the datasets."""
    return inspect_all(
        [dataset.images / name for dataset in datasets for name in dataset.image_names()], cache
    )


def leaks_between(
    dataset: DatasetUnderValidation,
    other: DatasetUnderValidation,
    bounds: Validation,
    facts: Facts | None,
    kind: Kind = "training",
) -> list[Leak]:
    """The images of `dataset` that `other` contains too."""
    ours, theirs = (
        ImageSet(one.name, one.images, one.image_names(), facts or {}) for one in (dataset, other)
    )
    return shared_images(ours, theirs, bounds.near_duplicate_bits, kind)


def _leaks_by_dataset(
    datasets: list[DatasetUnderValidation], training: list[str], bounds: Validation, facts: Facts
) -> dict[str, list[Leak]]:
    """Dataset -> the images that it shares: all with training sets, validation with tests too.

    Each pair is listed on both sides.
    """
    found: dict[str, list[Leak]] = {dataset.name: [] for dataset in datasets}
    for one, other, kind in _pairs(datasets, training):
        for leak in leaks_between(one, other, bounds, facts, kind):
            found[one.name].append(leak)
            found[other.name].append(leak.seen_from(one.name))
    return found


def _pairs(
    datasets: list[DatasetUnderValidation], training: list[str]
) -> Iterator[tuple[DatasetUnderValidation, DatasetUnderValidation, Kind]]:
    """Every two datasets that must not share an image, and why."""
    trained = [dataset for dataset in datasets if dataset.name in training]
    evaluated = [dataset for dataset in datasets if dataset.name not in training]
    for dataset in evaluated:
        for other in trained:
            yield dataset, other, "training"
    for chooser in evaluated:
        for tested in evaluated:
            if chooser.role == "validation" and tested.role in ("id", "ood"):
                yield chooser, tested, "choice"
