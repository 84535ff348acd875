"""Result files: the layout of VLM-R1's prediction logs, plus a `meta` block of ours.

One file is one unit, (method, checkpoint, dataset):
`{"accuracy": percent, "results": [row, ...], "meta": {...}}`. A row has question, ground_truth
(xyxy, original pixels), model_output, extracted_answer (xyxy, original pixels; null if unparsed),
correct (0 or 1), image, input_size and image_size (height, width). Logs of VLM-R1's authors have
neither `meta` nor the last three.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from vlm_r1.errors import ResultError


class ResultRow(BaseModel):
    """One record's answer."""

    model_config = ConfigDict(extra="allow")

    question: str
    ground_truth: tuple[float, float, float, float]
    model_output: str
    extracted_answer: tuple[float, float, float, float] | None
    correct: int
    image: str | None = None
    input_size: tuple[int, int] | None = None
    image_size: tuple[int, int] | None = None


class ResultFile(BaseModel):
    """A whole log; `accuracy` is what the file states, in percent."""

    model_config = ConfigDict(extra="allow")

    accuracy: float
    results: list[ResultRow]
    meta: dict[str, Any] | None = None


def read_results(path: Path) -> ResultFile:
    """Read a result file or a VLM-R1 log.

    Raises:
        ResultError: the file is missing, is not JSON, or a row lacks a key (file and row named).
    """
    try:
        return ResultFile.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        fault = "no such file"
    except UnicodeDecodeError as error:
        fault = f"not UTF-8 text ({error.reason})"
    except ValidationError as error:
        fault = first_fault(error)
    raise ResultError(
        got=f"{path}: {fault}",
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
    text = json.dumps(result.model_dump(mode="json"), indent=1, ensure_ascii=False)
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)
