"""May this data reach a trainer? The verdict on datasets, what is set aside, and their pages."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vlm_r1.config import Validation
from vlm_r1.data.readers.base import Reading
from vlm_r1.data.records import COLUMNS
from vlm_r1.data.validation.great_expectations_runner import Outcome, run_checks
from vlm_r1.data.validation.image_inspection import Finding, inspect_all
from vlm_r1.data.validation.leakage import ImageSet, Leak, shared_images
from vlm_r1.data.validation.suite import suite
from vlm_r1.data.validation.tables import record_table, row_table, split_table
from vlm_r1.errors import DataError
from vlm_r1.files import write_text

LEAKS_ON_PAGE = 50

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class DatasetUnderValidation:
    """A dataset that asks to be used.

    Attributes:
        role: train, or another one.
        images: folder that `image` of its records is relative to.
        published: name of its entry in `published.PUBLISHED`, if it is a public set.
    """

    name: str
    role: str
    reading: Reading
    images: Path
    published: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What was found about a candidate.

    Attributes:
        on_failure: fail, or quarantine: rows that fail a check are set aside, and the rest passes.
    """

    dataset: DatasetUnderValidation
    on_failure: str
    outcomes: list[Outcome]
    leakage: list[Leak] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether what is left may be used."""
        unsettled = [o for o in self.outcomes if not o.success and not self._sets_aside(o)]
        return not unsettled and len(self.records) > 0

    @cached_property
    def records(self) -> pd.DataFrame:
        """The records that are left, in the file's order."""
        return self.dataset.reading.records.drop(index=list(self._reasons["records"]))

    @cached_property
    def set_aside(self) -> list[dict[str, Any]]:
        """Each row that is set aside: file, row, id, the names of the checks, and what it holds."""
        reading, lines = self.dataset.reading, []
        for position, reasons in sorted(self._reasons["records"].items()):
            row = reading.records.loc[position]
            place = {"file": row["file"], "row": int(row["row"]), "id": row["record_id"]}
            lines.append(place | {"reasons": reasons, "record": row[COLUMNS].to_dict()})
        if "rows" in self._reasons:
            for row in reading.unread.to_dict("records"):
                fault = row.pop("fault")
                lines.append(row | {"reasons": ["row_readable"], "fault": fault})
        return lines

    def to_json_dict(self) -> dict[str, Any]:
        """As validation.json holds it."""
        return {
            "verdict": "pass" if self.passed else "fail",
            "rows": self.dataset.reading.rows,
            "quarantined": len(self.set_aside),
            "expectations": [outcome.to_json_dict() for outcome in self.outcomes],
            "leakage": [leak.to_json_dict() for leak in self.leakage],
        }

    def failures(self) -> list[str]:
        """One line an expectation that is not met, with its first row; none where all are."""
        rows = self.dataset.reading.rows
        lines = [_failure(o, rows) for o in self.outcomes if not o.success]
        return lines if len(self.records) else [*lines, "no record is left"]

    @cached_property
    def _reasons(self) -> dict[str, dict[int, list[str]]]:
        """Table -> position of a row that is set aside -> the checks that it failed."""
        reasons: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        for outcome in self.outcomes:
            if not outcome.success and self._sets_aside(outcome):
                for position in outcome.failing:
                    reasons[outcome.check.table][position].append(outcome.check.name)
        return reasons

    def _sets_aside(self, outcome: Outcome) -> bool:
        remedy = outcome.check.remedy
        quarantine = remedy == "settled" and self.on_failure == "quarantine"
        return quarantine or remedy == "set_aside"


def _failure(outcome: Outcome, rows: int) -> str:
    first = outcome.examples[0]
    row = "" if first["row"] is None else f" row {first['row']}"
    return (
        f"{outcome.check.name} fails for {len(outcome.failing)} of {rows} rows, first "
        f"{first['file']}{row} {json.dumps(first['value'], ensure_ascii=False)}"
    )


def validate(
    candidates: list[DatasetUnderValidation], training: str, bounds: Validation, cache: Path
) -> dict[str, Verdict]:
    """The verdict on every dataset of an experiment, by name.

    Args:
        training: name of the candidate whose images the others must not repeat.
        cache: file that remembers what the images were like.
    """
    files = [path for one in candidates for path in image_files(one)]
    findings = inspect_all(files, cache)
    leaks = find_leaks(candidates, training, bounds, findings)
    return {one.name: judge(one, bounds, findings, leaks[one.name]) for one in candidates}


def find_leaks(
    candidates: list[DatasetUnderValidation],
    training: str,
    bounds: Validation,
    findings: Mapping[Path, Finding],
) -> dict[str, list[Leak]]:
    """Dataset -> the images it shares across training and tests, as each of them sees it."""
    albums = {one.name: album_of(one, findings) for one in candidates}
    trained = albums.pop(training)
    found = {
        name: shared_images(album, trained, bounds.near_duplicate_bits)
        for name, album in albums.items()
    }
    return found | {training: [one.seen_from(name) for name in found for one in found[name]]}


def judge(
    dataset: DatasetUnderValidation,
    bounds: Validation,
    findings: Mapping[Path, Finding] | None,
    leaks: list[Leak],
) -> Verdict:
    """The verdict on one dataset.

    Args:
        findings: of its images; None: only metadata is checked.
        leaks: images it shares with others. Test sets stay whole: their check fails, or
            `bounds.on_leak` excludes the images from the training set.
    """
    reading, counted = dataset.reading, dataset.published is not None
    checks = suite(dataset.role, bounds, findings is not None, counted)
    tables = {
        "rows": row_table(reading),
        "records": record_table(reading, dataset.images, findings, leaks),
        "splits": split_table(dataset.name, reading, dataset.published),
    }
    return Verdict(dataset, bounds.on_failure, run_checks(checks, tables), leaks)


def album_of(dataset: DatasetUnderValidation, findings: Mapping[Path, Finding] | None) -> ImageSet:
    """The candidate's images, to be compared."""
    images = list(dataset.reading.records["image"].unique())
    return ImageSet(dataset.name, dataset.images, images, findings or {})


def image_files(dataset: DatasetUnderValidation) -> list[Path]:
    """The distinct image files of a candidate."""
    return [dataset.images / image for image in dataset.reading.records["image"].unique()]


def unreadable(name: str, error: DataError) -> dict[str, Any]:
    """What validation.json holds of a file of which no row could be read."""
    example = {"file": name, "row": None, "id": None, "value": {"fault": error.got}}
    outcome = {"name": "file_readable", "success": False, "failed": 1, "examples": [example]}
    return {
        "verdict": "fail",
        "rows": 0,
        "quarantined": 0,
        "expectations": [outcome],
        "leakage": [],
    }


def write_files(folder: Path, verdict: Verdict) -> None:
    """validation.json and validation.html; quarantine.jsonl if rows are set aside."""
    says = {outcome.check.name: outcome.check.says for outcome in verdict.outcomes}
    write_verdict(folder, verdict.dataset.name, verdict.to_json_dict(), says)
    lines = [json.dumps(line, ensure_ascii=False) for line in verdict.set_aside]
    quarantine = folder / "quarantine.jsonl"
    quarantine.unlink(missing_ok=True)
    if lines:
        write_text(quarantine, "\n".join(lines))


def write_verdict(folder: Path, name: str, found: dict[str, Any], says: Mapping[str, str]) -> None:
    """validation.json, and validation.html: one self-contained page, everything in it escaped.

    Args:
        found: as validation.json holds it.
        says: expectation -> the sentence that holds when it is met.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "validation.json", json.dumps(found, indent=1, ensure_ascii=False))
    write_text(folder / "validation.html", render_page(name, found, says))


def render_page(name: str, found: dict[str, Any], says: Mapping[str, str]) -> str:
    """validation.html."""
    loader = FileSystemLoader(_TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    template = environment.get_template("validation.html")
    return template.render(name=name, says=says, leaks_shown=LEAKS_ON_PAGE, **found)
