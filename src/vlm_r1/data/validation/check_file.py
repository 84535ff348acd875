"""`vlm-r1 validate`: one file's verdict, outside of an experiment."""

from dataclasses import dataclass
from pathlib import Path

from vlm_r1.config import Validation
from vlm_r1.data.readers import guess_format, read
from vlm_r1.data.readers.base import Source, require_all_read
from vlm_r1.data.validation.image_inspection import Finding, inspect_all
from vlm_r1.data.validation.leakage import shared_images
from vlm_r1.data.validation.outcome import (
    DatasetUnderValidation,
    album_of,
    image_files,
    judge,
    unreadable,
    write_files,
    write_verdict,
)
from vlm_r1.errors import DataError
from vlm_r1.paths import IMAGES


@dataclass(frozen=True)
class CheckResult:
    """Whether the file passed, and what to say about it."""

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
) -> CheckResult:
    """Validate a file; writes validation.json, its page, and quarantine.jsonl if any, into `out`.

    A file that cannot be read at all fails, and `out` says why.

    Raises:
        DataError: a file of `against` cannot be read.
    """
    others = [_read_dataset(other, None, images) for other in against]
    for other in others:
        require_all_read(other.reading)
    try:
        dataset = _read_dataset(path, source_format, images)
    except DataError as error:
        write_verdict(out, str(path), unreadable(str(path), error), {})
        return CheckResult(False, [str(error), f"fail: {out / 'validation.html'}"])
    findings = None if metadata_only else _inspect([dataset, *others])
    album = album_of(dataset, findings)
    leaks = [
        leak
        for other in others
        for leak in shared_images(album, album_of(other, findings), bounds.near_duplicate_bits)
    ]
    verdict = judge(dataset, bounds.model_copy(update={"on_leak": "fail"}), findings, leaks)
    write_files(out, verdict)
    outcome = "pass" if verdict.passed else "fail"
    counts = f"{dataset.reading.rows} rows, {len(verdict.set_aside)} set aside"
    return CheckResult(
        verdict.passed,
        [*verdict.failures(), f"{outcome}: {counts}, {out / 'validation.html'}"],
    )


def _inspect(datasets: list[DatasetUnderValidation]) -> dict[Path, Finding]:
    return inspect_all([file for one in datasets for file in image_files(one)], IMAGES)


def _read_dataset(path: Path, source_format: str | None, images: Path) -> DatasetUnderValidation:
    source = Source(path, str(path), images=images)
    reading = read(source_format or guess_format(path), source)
    return DatasetUnderValidation(str(path), "tested", reading, images)
