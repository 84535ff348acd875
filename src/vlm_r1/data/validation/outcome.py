"""The outcome of validating a dataset: whether it passes, and which rows are quarantined."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from vlm_r1.data.readers.base import ReadResult
from vlm_r1.data.records import columns_of
from vlm_r1.data.validation.great_expectations_runner import ExpectationResult
from vlm_r1.data.validation.leakage import Leak


@dataclass(frozen=True)
class DatasetUnderValidation:
    """A dataset as it was read.

    Attributes:
        role: train, validation, id or ood.
        images: folder that `image` of the records is relative to.
        published: its entry in `published_counts.PUBLISHED`, if it is a public dataset.
    """

    name: str
    role: str
    rows: ReadResult
    images: Path
    published: str | None = None

    def image_names(self) -> list[str]:
        """Distinct images of the records, in order of appearance."""
        return list(self.rows.records["image"].unique())


@dataclass(frozen=True)
class ValidationOutcome:
    """Results of all expectations on one dataset.

    Attributes:
        on_failure: `fail`, or `quarantine`: failing rows are removed, and the other records pass.
    """

    dataset: DatasetUnderValidation
    on_failure: str
    results: list[ExpectationResult]
    leakage: list[Leak] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the records that are left may be used."""
        failed = [r for r in self.results if not r.success and not self._quarantines(r)]
        return not failed and len(self.records) > 0

    @cached_property
    def records(self) -> pd.DataFrame:
        """The records without the quarantined ones, in the file's order."""
        return self.dataset.rows.records.drop(index=list(self._reasons["records"]))

    @cached_property
    def quarantined(self) -> list[dict[str, Any]]:
        """Every quarantined row: file, row, id, names of the failed checks, and its content."""
        records = self.dataset.rows.records
        reasons = sorted(self._reasons["records"].items())
        places = [position for position, _ in reasons]
        lines: list[dict[str, Any]] = [
            {
                "file": row["file"],
                "row": int(row["row"]),
                "id": row["record_id"],
                "reasons": names,
                "record": {column: row[column] for column in columns_of(records)},
            }
            for row, (_, names) in zip(records.loc[places].to_dict("records"), reasons, strict=True)
        ]
        if "rows" in self._reasons:
            for unread in self.dataset.rows.unread.to_dict("records"):
                place = {key: unread[key] for key in ("file", "row", "id")}
                lines.append(place | {"reasons": ["row_readable"], "fault": unread["fault"]})
        return lines

    @cached_property
    def _reasons(self) -> dict[str, dict[int, list[str]]]:
        """Table -> position of a quarantined row in it -> names of the checks that it failed."""
        reasons: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        for result in self.results:
            if not result.success and self._quarantines(result):
                for position in result.failing:
                    reasons[result.check.table][position].append(result.check.name)
        return reasons

    def _quarantines(self, result: ExpectationResult) -> bool:
        action = result.check.on_failure
        return (self.on_failure if action == "as_configured" else action) == "quarantine"

    def failures(self) -> list[str]:
        """One line per failed expectation, with its first row; empty if all hold."""
        lines = [self._failure(result) for result in self.results if not result.success]
        return lines if len(self.records) else [*lines, "no record is left"]

    def _failure(self, result: ExpectationResult) -> str:
        first = result.examples[0]
        row = "" if first["row"] is None else f" row {first['row']}"
        return (
            f"{result.check.name} fails for {len(result.failing)} of {self.dataset.rows.row_count}"
            f" rows, first {first['file']}{row} {json.dumps(first['value'], ensure_ascii=False)}"
        )

    def to_json_dict(self) -> dict[str, Any]:
        """Content of validation.json."""
        return {
            "verdict": "pass" if self.passed else "fail",
            "rows": self.dataset.rows.row_count,
            "quarantined": len(self.quarantined),
            "expectations": [result.to_json_dict() for result in self.results],
            "leakage": [leak.to_json_dict() for leak in self.leakage],
        }
