"""`vlm-r1 validate`: one file's verdict, outside of an experiment."""

from dataclasses import dataclass
from pathlib import Path

from vlm_r1.config import Validation
from vlm_r1.data.readers import guess_format, read
from vlm_r1.data.readers.base import Source, require_all_read
from vlm_r1.data.validation.image_inspection import Finding, inspect_all
from vlm_r1.data.validation.leakage import shared_pictures
from vlm_r1.data.validation.outcome import (
    Candidate,
    album_of,
    judge,
    picture_files,
    unreadable,
    write_files,
    write_verdict,
)
from vlm_r1.errors import DataError
from vlm_r1.paths import PICTURES


@dataclass(frozen=True)
class Told:
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
) -> Told:
    """Validate a file; writes validation.json, its page, and quarantine.jsonl if any, into `out`.

    A file that cannot be read at all fails, and `out` says why.

    Raises:
        DataError: a file of `against` cannot be read.
    """
    others = [_candidate(other, None, images) for other in against]
    for other in others:
        require_all_read(other.reading)
    try:
        candidate = _candidate(path, source_format, images)
    except DataError as error:
        write_verdict(out, str(path), unreadable(str(path), error), {})
        return Told(False, [str(error), f"fail: {out / 'validation.html'}"])
    findings = None if metadata_only else _inspect([candidate, *others])
    album = album_of(candidate, findings)
    leaks = [
        leak
        for other in others
        for leak in shared_pictures(album, album_of(other, findings), bounds.near_duplicate_bits)
    ]
    verdict = judge(candidate, bounds.model_copy(update={"on_leak": "fail"}), findings, leaks)
    write_files(out, verdict)
    outcome = "pass" if verdict.passed else "fail"
    counts = f"{candidate.reading.rows} rows, {len(verdict.set_aside)} set aside"
    return Told(
        verdict.passed,
        [*verdict.failures(), f"{outcome}: {counts}, {out / 'validation.html'}"],
    )


def _inspect(candidates: list[Candidate]) -> dict[Path, Finding]:
    return inspect_all([file for one in candidates for file in picture_files(one)], PICTURES)


def _candidate(path: Path, source_format: str | None, images: Path) -> Candidate:
    source = Source(path, str(path), images=images)
    reading = read(source_format or guess_format(path), source)
    return Candidate(str(path), "tested", reading, images)
