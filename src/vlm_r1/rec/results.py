"""Result files: the layout of VLM-R1's prediction logs, plus a `meta` block of ours.

One file is one unit, (method, checkpoint, dataset):
`{"accuracy": percent, "results": [row, ...], "meta": {...}}`. A row has question, ground_truth
(xyxy, original pixels), model_output, extracted_answer (xyxy, original pixels; null if unparsed),
correct (0 or 1), image, input_size and image_size (height, width), and may have a record_id and a
split. Logs of VLM-R1's authors have neither `meta` nor what follows `correct`. Files of other tools
are brought into this form by evaluation/logs.py.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat, PositiveInt, ValidationError

from vlm_r1.errors import ResultError

Box = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]  # xyxy
Size = tuple[PositiveInt, PositiveInt]  # height, width


class ResultRow(BaseModel):
    """One record's answer."""

    model_config = ConfigDict(extra="allow")

    question: str
    ground_truth: Box
    model_output: str
    extracted_answer: Box | None
    correct: int | None
    image: str | None = None
    input_size: Size | None = None
    image_size: Size | None = None
    record_id: str | int | None = None


class ResultFile(BaseModel):
    """A whole log; `accuracy` is what the file states, in percent; None where it states none."""

    model_config = ConfigDict(extra="allow")

    accuracy: FiniteFloat | None
    results: list[ResultRow]
    meta: dict[str, Any] | None = None


def read_results(path: Path) -> ResultFile:
    """Read a result file or a VLM-R1 log.

    Raises:
        ResultError: the file is missing, is not JSON, or a row lacks a key (file and row named).
    """
    try:
        return ResultFile.model_validate_json(read_text(path))
    except ValidationError as error:
        raise unusable_file(path, first_fault(error)) from None


def read_text(path: Path) -> str:
    """A log's text.

    Raises:
        ResultError: the file is missing, empty, or is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise unusable_file(path, (error.strerror or str(error)).lower()) from None
    except UnicodeDecodeError as error:
        raise unusable_file(path, f"not UTF-8 text ({error.reason})") from None
    if not text.strip():
        raise unusable_file(path, "the file is empty")
    return text


def unusable_file(path: Path, fault: str) -> ResultError:
    """The refusal of a log; one that stops in the middle is said to be cut short."""
    cut = " (the file is cut short)" if "EOF" in fault else ""
    return ResultError(
        got=f"{path}: {fault}{cut}",
        need='an object {"accuracy": percent, "results": [rows]} as VLM-R1 writes it',
        because="scores are recomputed from the rows",
        do="check the path, or write the log again",
    )


def first_fault(error: ValidationError) -> str:
    """Where a file's first fault is (row from 1, key) and what it is."""
    first = error.errors()[0]
    where = first["loc"]
    if len(where) > 1 and where[0] == "results":
        field = ".".join(str(part) for part in where[2:])
        return f"row {where[1] + 1}: {field or 'row'}: {first['msg']}"
    return f"{'.'.join(str(part) for part in where) or 'file'}: {first['msg']}"


def write_results(path: Path, result: ResultFile) -> None:
    """Write under a temporary name, then rename, so that no half file ever has the real name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    content = result.model_dump(mode="json", exclude_unset=True)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)
