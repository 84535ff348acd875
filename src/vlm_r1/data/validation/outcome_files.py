"""The files of a validation: validation.json, its page validation.html, and quarantine.jsonl."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vlm_r1.data.validation.outcome import ValidationOutcome
from vlm_r1.errors import DataError
from vlm_r1.files import write_json, write_text

LEAKS_ON_PAGE = 50

_TEMPLATES = Path(__file__).parent / "templates"


def write_outcome(folder: Path, outcome: ValidationOutcome) -> None:
    """Write validation.json and validation.html, and quarantine.jsonl if rows are quarantined."""
    descriptions = {result.check.name: result.check.description for result in outcome.results}
    _write_result(folder, outcome.dataset.name, outcome.to_json_dict(), descriptions)
    quarantine = folder / "quarantine.jsonl"
    quarantine.unlink(missing_ok=True)
    if outcome.quarantined:
        lines = [json.dumps(row, ensure_ascii=False) for row in outcome.quarantined]
        write_text(quarantine, "\n".join(lines))


def write_unreadable(folder: Path, name: str, error: DataError) -> None:
    """Write validation.json and validation.html for a file of which no row could be read."""
    example = {"file": name, "row": None, "id": None, "value": {"fault": error.got}}
    failure = {"name": "file_readable", "success": False, "failed": 1, "examples": [example]}
    result = {
        "verdict": "fail",
        "rows": 0,
        "quarantined": 0,
        "expectations": [failure],
        "leakage": [],
    }
    _write_result(folder, name, result, {})


def _write_result(
    folder: Path, name: str, result: dict[str, Any], descriptions: Mapping[str, str]
) -> None:
    write_json(folder / "validation.json", result)
    write_text(folder / "validation.html", render_page(name, result, descriptions))


def render_page(name: str, result: dict[str, Any], descriptions: Mapping[str, str]) -> str:
    """validation.html: one self-contained page, with all values from the data escaped.

    Args:
        result: content of validation.json.
        descriptions: expectation -> the sentence that is true if it holds.
    """
    loader = FileSystemLoader(_TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    template = environment.get_template("validation.html")
    return template.render(
        name=name, descriptions=descriptions, leaks_shown=LEAKS_ON_PAGE, **result
    )
