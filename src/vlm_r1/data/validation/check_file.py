"""Validation of a single file, outside of an experiment (`vlm-r1 validate`)."""

from dataclasses import dataclass
from pathlib import Path

from vlm_r1.config import Validation
from vlm_r1.data.readers import guess_format, read
from vlm_r1.data.readers.base import InputFile, require_all_read
from vlm_r1.data.validation.outcome import DatasetUnderValidation
from vlm_r1.data.validation.outcome_files import write_outcome, write_unreadable
from vlm_r1.data.validation.validate import inspect_datasets, leaks_between, validate_dataset
from vlm_r1.errors import DataError
from vlm_r1.paths import IMAGES


@dataclass(frozen=True)
class FileCheck:
    """Whether a file passed, and the lines to print."""

    passed: bool
    lines: list[str]


def check_file(
    path: Path,
    source_format: str | None,
    images: Path,
    out: Path,
    *,
    bounds: Validation,
    against: list[Path],
    metadata_only: bool,
) -> FileCheck:
    """Validate a file, and write the outcome's files into `out`.

    A file that cannot be read at all fails; the reason is written too.

    Args:
        source_format: None: guessed from the suffix.
        against: files whose images the checked file must not share.

    Raises:
        DataError: a file of `against` cannot be read.
    """
    others = [_read_dataset(other, None, images) for other in against]
    for other in others:
        require_all_read(other.rows)
    try:
        dataset = _read_dataset(path, source_format, images)
    except DataError as error:
        write_unreadable(out, str(path), error)
        return FileCheck(False, [str(error), f"fail: {out / 'validation.html'}"])
    facts = None if metadata_only else inspect_datasets([dataset, *others], IMAGES)
    leaks = [leak for other in others for leak in leaks_between(dataset, other, bounds, facts)]
    # Only one file is at hand, so there is no training set to exclude shared images from.
    outcome = validate_dataset(dataset, bounds.model_copy(update={"on_leak": "fail"}), facts, leaks)
    write_outcome(out, outcome)
    verdict = "pass" if outcome.passed else "fail"
    counts = f"{dataset.rows.row_count} rows, {len(outcome.quarantined)} quarantined"
    summary = f"{verdict}: {counts}, {out / 'validation.html'}"
    return FileCheck(outcome.passed, [*outcome.failures(), summary])


def _read_dataset(path: Path, source_format: str | None, images: Path) -> DatasetUnderValidation:
    source = InputFile(path, str(path), images=images)
    rows = read(source_format or guess_format(path), source)
    return DatasetUnderValidation(str(path), "tested", rows, images)
