"""Any prediction log as a `ResultFile`: ours, VLM-R1's, and JSON or JSONL of other tools.

A log is a JSON list of rows, an object that holds one, or one row a line. What its rows call the
true box, the completion and so on is told by fields, role=name; a dotted name looks inside
(`doc.bbox`, `resps.0`). Roles that are not told have VLM-R1's names.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from vlm_r1.errors import ConfigError, ResultError
from vlm_r1.evaluation.scores import Scores
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.rec.results import ResultFile, first_fault, read_text, unusable_file
from vlm_r1.rec.vlm_r1_parsers import STANDARD, preset_named

FIELDS = {
    "rows": "results",  # of the file; the others are of a row
    "accuracy": "accuracy",  # of the file, percent
    "truth": "ground_truth",  # xyxy, original pixels
    "completion": "model_output",  # text, or the box itself
    "box": "extracted_answer",  # xyxy
    "question": "question",
    "image": "image",
    "id": "record_id",
    "image_size": "image_size",  # height, width
    "width": "width",  # of the image, where there is no image_size
    "height": "height",
    "input_size": "input_size",  # height, width after the processor's resize
    "correct": "correct",  # 0 or 1
}
_ABSENT = object()


@dataclass(frozen=True)
class PredictionLog:
    """A log, its scores (rows in the same order) and its name."""

    name: str
    result: ResultFile
    scores: Scores


def score_file(
    path: Path,
    fields: list[str] | None = None,
    preset: str | None = None,
    coordinate_space: str | None = None,
    repair: bool = False,
) -> PredictionLog:
    """Read and score a prediction log of any tool.

    Args:
        fields: what the log calls its fields, ["truth=gt_bbox", ...]; roles are those of `FIELDS`.
        preset, coordinate space: as `score_results` takes them, the preset by its name.
        repair: put reversed corners in order; completions are then read, by `standard`.

    Raises:
        ConfigError: there is no such role or preset, or the preset repairs nothing.
        ResultError: the file cannot be read or scored; the message names it.
    """
    result = read_log(path, parse_fields(fields or []))
    if preset is None and repair:
        preset = STANDARD.name
    chosen = None if preset is None else preset_named(preset, repair)
    try:
        scores = score_results(result, chosen, coordinate_space)
    except ResultError as error:
        raise ResultError(f"{path}: {error.got}", error.need, error.because, error.do) from None
    return PredictionLog(str(path), result, scores)


def parse_fields(given: list[str]) -> dict[str, str]:
    """`["truth=gt_bbox"]` -> `{"truth": "gt_bbox"}`.

    Raises:
        ConfigError: an entry is not role=name, or there is no such role.
    """
    pairs = [entry.partition("=") for entry in given]
    for entry, (role, _, name) in zip(given, pairs, strict=True):
        if role not in FIELDS or not name:
            raise ConfigError(
                got=f"--field {entry}",
                need=f"ROLE=NAME with a role of {', '.join(FIELDS)}",
                because="a role says what the field of that name holds",
                do="for example --field truth=gt_bbox --field completion=pred",
            )
    return {role: name for role, _, name in pairs}


def read_log(path: Path, fields: dict[str, str] | None = None) -> ResultFile:
    """Read a prediction log of any tool.

    Without a stated accuracy, the mean of the rows' `correct` is what the file states.

    Args:
        fields: role of `FIELDS` -> the name it has in this log.

    Raises:
        ResultError: the file is missing, empty, cut short or no log; a row lacks its true box or
            its answer, or holds a number that is none (file and row named).
    """
    fields = fields or {}
    content = _content(path)
    if isinstance(content, list):
        listed, stated, meta = content, None, None
    else:
        listed = _of_file(path, content, fields, "rows")
        stated = _look_up(content, fields.get("accuracy", FIELDS["accuracy"]))
        meta = _own_meta(content, fields)
    rows = [_row(path, number, raw, fields) for number, raw in enumerate(listed, start=1)]
    if stated in (_ABSENT, None):
        stated = _mean_correct(rows)
    try:
        return ResultFile.model_validate({"accuracy": stated, "results": rows, "meta": meta})
    except ValidationError as error:
        raise unusable_file(path, first_fault(error)) from None


def _content(path: Path) -> dict | list:
    """The file's one JSON value, or the list of its lines' values."""
    text = read_text(path)
    try:
        if path.suffix == ".jsonl":
            return _lines(path, text)
        content = from_json(text)
    except ValueError as error:
        if "trailing characters" not in str(error):
            raise unusable_file(path, f"not JSON: {error}") from None
        content = _lines(path, text)
    if not isinstance(content, dict | list):
        raise unusable_file(path, f"a bare {type(content).__name__}")
    return content


def _lines(path: Path, text: str) -> list:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            rows += [from_json(line)] if line.strip() else []
        except ValueError as error:
            raise unusable_file(path, f"line {number}: not JSON: {error}") from None
    return rows


def _of_file(path: Path, content: dict, fields: dict[str, str], role: str) -> list:
    name = fields.get(role, FIELDS[role])
    found = _look_up(content, name)
    if not isinstance(found, list):
        raise ResultError(
            got=f"{path}: no list of rows under {name!r}, but {', '.join(map(repr, content))}",
            need="a list of rows, an object that holds one, or one row a line",
            because="scores are computed from rows",
            do=f"--field {role}=NAME says where the rows are",
        )
    return found


def _own_meta(content: dict, fields: dict[str, str]) -> Any:
    """Our `meta`; another tool's block of that name is not taken for it."""
    meta = content.get("meta")
    ours = isinstance(meta, dict) and "contract" in meta
    return meta if ours or not fields else None


def _row(path: Path, number: int, raw: Any, fields: dict[str, str]) -> dict[str, Any]:
    """A row in VLM-R1's names; what it does not tell is None."""
    if not isinstance(raw, dict):
        raise unusable_file(path, f"row {number}: not an object")
    told = {role: _look_up(raw, fields.get(role, name)) for role, name in FIELDS.items()}
    lacking = [role for role in ("truth", *fields) if told[role] is _ABSENT]
    lacking = [role for role in lacking if role not in ("rows", "accuracy")]
    if told["completion"] is told["box"] is _ABSENT:
        lacking.append("completion")
    if lacking:
        raise _lacking(path, number, raw, fields, lacking[0])
    told = {role: None if value is _ABSENT else value for role, value in told.items()}
    if isinstance(told["completion"], list):  # a tool that writes the box, not the text
        told["box"], told["completion"] = told["completion"], None
    if None not in (told["height"], told["width"]):
        told["image_size"] = told["image_size"] or (told["height"], told["width"])
    return {
        "question": "" if told["question"] is None else told["question"],
        "ground_truth": told["truth"],
        "model_output": "" if told["completion"] is None else told["completion"],
        "extracted_answer": None if told["box"] == [] else told["box"],
        "correct": told["correct"],
        "image": told["image"],
        "image_size": told["image_size"],
        "input_size": told["input_size"],
        "record_id": told["id"],
    }


def _look_up(content: dict, name: str) -> Any:
    """The value called `name`, else the one that its dotted parts lead to, else `_ABSENT`."""
    if name in content:
        return content[name]
    value: Any = content
    for part in name.split("."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return _ABSENT
    return value


def _lacking(path: Path, number: int, raw: dict, fields: dict[str, str], role: str) -> ResultError:
    return ResultError(
        got=f"{path}: row {number}: {fields.get(role, FIELDS[role])}: no such field among "
        f"{', '.join(map(repr, raw))}",
        need="in every row a true box and a completion, and each field that was named",
        because="a row that is left out would make the score one of fewer rows",
        do=f"--field {role}=NAME says what the field is called",
    )


def _mean_correct(rows: list[dict]) -> float | None:
    flags = [row["correct"] for row in rows]
    if not flags or not all(isinstance(flag, int | float) for flag in flags):
        return None
    return 100 * sum(flags) / len(flags)
