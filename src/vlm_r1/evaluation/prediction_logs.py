"""Reads any prediction log as a `ResultFile`: ours, VLM-R1's, and JSON or JSONL of other tools.

A log is a JSON list of rows, an object that contains one, or one row per line. Fields, role=name,
map what a log calls the true box, the completion and so on; a dotted name reaches into nested
values (`doc.bbox`, `resps.0`; with slashes if a part has a dot, `doc/bbox.xyxy`). Roles that are
not mapped have VLM-R1's names, or lmms-eval's in its sample logs (evaluation/log_rows.py).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from vlm_r1.errors import ConfigError, ResultError, describe_fault
from vlm_r1.evaluation.box_formats import XYWH, XYXY, BoxFormats, require_readable
from vlm_r1.evaluation.log_rows import ABSENT, ROW_FIELDS, look_up, result_rows, stated_space
from vlm_r1.evaluation.scores import Scores
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.rec.results import ResultFile, read_text, unusable_file
from vlm_r1.rec.vlm_r1_parsers import STANDARD, preset_named

FILE_FIELDS = {"rows": "results", "accuracy": "accuracy"}  # accuracy in percent
FIELDS = FILE_FIELDS | ROW_FIELDS


@dataclass(frozen=True)
class PredictionLog:
    """A log with its name and its scores, in the order of its rows."""

    name: str
    result: ResultFile
    scores: Scores


def score_file(
    path: Path,
    fields: list[str] | None = None,
    preset: str | None = None,
    coordinate_space: str | None = None,
    repair: bool = False,
    box_formats: BoxFormats = XYXY,
) -> PredictionLog:
    """Read and score a prediction log of any tool.

    Args:
        fields: what the log calls its fields, ["truth=gt_bbox", ...]; roles are those of `FIELDS`.
        preset: name of the preset that reads the completions; see `score_results`.
        coordinate_space: that of the answers; see `score_results`.
        repair: put reversed corners in order; completions are then read, by `standard`.
        box_formats: how true boxes and answers are written; our own files are always xyxy.

    Raises:
        ConfigError: there is no such role or preset, or the preset cannot repair corners, or cannot
            read the answers' format.
        ResultError: the file cannot be read or scored; the message names it.
    """
    require_readable(box_formats, preset, repair)
    result = read_log(path, parse_fields(fields or []), box_formats)
    if preset is None and repair:
        preset = STANDARD.name
    chosen = None if preset is None else preset_named(preset, repair)
    in_xywh = box_formats.answer == XYWH and result.meta is None
    try:
        scores = score_results(result, chosen, coordinate_space, in_xywh)
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
                because="the role says what the field of that name contains",
                do="for example --field truth=gt_bbox --field completion=pred",
            )
    return {role: name for role, _, name in pairs}


def read_log(
    path: Path, fields: dict[str, str] | None = None, box_formats: BoxFormats = XYXY
) -> ResultFile:
    """Read a prediction log of any tool; boxes become xyxy.

    If the file states no accuracy, the mean of the rows' `correct` counts as stated.

    Args:
        fields: role of `FIELDS` -> its name in this log.
        box_formats: how the boxes in the log's fields are written; our own files are always xyxy.

    Raises:
        ResultError: the file is missing, empty, cut short or not a log; a row lacks its true box or
            its answer, or contains NaN or infinity (the message names file and row).
    """
    fields = fields or {}
    content = _read_json(path)
    if isinstance(content, list):
        listed, stated, meta = content, None, None
    else:
        listed = _rows_of_object(path, content, fields.get("rows", FIELDS["rows"]))
        stated = look_up(content, fields.get("accuracy", FIELDS["accuracy"]))
        meta = _own_meta(content, fields)
    rows = result_rows(path, listed, fields, box_formats if meta is None else XYXY)
    if stated is ABSENT or stated is None:
        stated = _mean_correct(rows)
    found = {"accuracy": stated, "results": rows, "meta": meta}
    try:
        return ResultFile.model_validate(found | {"coordinate_space": stated_space(listed)})
    except ValidationError as error:
        raise unusable_file(path, describe_fault(error, rows="results")) from None


def _read_json(path: Path) -> dict[str, Any] | list[Any]:
    """The file's one JSON value, or the list of its lines' values."""
    text = read_text(path)
    try:
        if path.suffix == ".jsonl":
            return _read_lines(path, text)
        content = from_json(text)
    except ValueError as error:
        if "trailing characters" not in str(error):
            raise unusable_file(path, f"not JSON: {error}") from None
        content = _read_lines(path, text)
    if not isinstance(content, dict | list):
        raise unusable_file(path, f"a bare {type(content).__name__}")
    return content


def _read_lines(path: Path, text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            rows += [from_json(line)] if line.strip() else []
        except ValueError as error:
            raise unusable_file(path, f"line {number}: not JSON: {error}") from None
    return rows


def _rows_of_object(path: Path, content: dict[str, Any], name: str) -> list[Any]:
    """The list of rows called `name`."""
    found = look_up(content, name)
    if not isinstance(found, list):
        raise ResultError(
            got=f"{path}: no list of rows under {name!r}, but {', '.join(map(repr, content))}",
            need="a list of rows, an object that contains one, or one row per line",
            because="scores are computed from rows",
            do="--field rows=NAME says where the rows are",
        )
    return found


def _own_meta(content: dict[str, Any], fields: dict[str, str]) -> Any:
    """Our `meta` block; None if another tool has one of that name."""
    meta = content.get("meta")
    ours = isinstance(meta, dict) and "contract" in meta
    return meta if ours or not fields else None


def _mean_correct(rows: list[dict[str, Any]]) -> float | None:
    """The mean of the rows' `correct`, percent; None unless every row has a number."""
    flags = [row["correct"] for row in rows]
    if not flags or not all(isinstance(flag, int | float) for flag in flags):
        return None
    return 100 * float(sum(flags)) / len(flags)
