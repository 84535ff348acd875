"""Result files: VLM-R1's prediction logs with a `meta` block added.

One file holds one evaluation result, (training run, step, dataset):
`{"accuracy": percent, "results": [row, ...], "meta": {...}}`. A row has question, ground_truth
(the true box: xyxy, original pixels), model_output, extracted_answer (the predicted box, likewise;
null if unparsed), correct (0 or 1), image, input_size and image_size (height, width), and may have
a record_id and a split. Rows that this project wrote also have new_tokens (generated, an end of
turn included), cut_off (whether evaluate.max_new_tokens ended the answer) and, with
evaluate.repeats, sampled_correct (0 or 1 of each sampled answer). A row of object detection (OVD)
also has true_objects and answered_objects (each box with its label), and is correct if all of them
match (evaluation/detection.py); its ground_truth and extracted_answer are the smallest boxes around
them, and ground_truth the whole image if there are none. Logs of VLM-R1's authors have neither
`meta` nor what follows `correct`.
Logs of other tools are converted to this form by evaluation/prediction_logs.py.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat, PositiveInt, ValidationError

from vlm_r1.errors import ResultError, describe_fault
from vlm_r1.files import write_json

Box = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]  # xyxy
Size = tuple[PositiveInt, PositiveInt]  # height, width


class ResultObject(BaseModel):
    """A true or answered object of a detection row; xyxy in original pixels.

    An answered box is as it was written, also with reversed corners; a label may be empty.
    """

    bbox_2d: Box
    label: str


class ResultRow(BaseModel):
    """The model's answer to one record."""

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
    new_tokens: int | None = None
    cut_off: bool | None = None
    sampled_correct: list[int] | None = None
    true_objects: list[ResultObject] | None = None
    answered_objects: list[ResultObject] | None = None


class ResultFile(BaseModel):
    """A whole log.

    `accuracy` is the stated one, in percent, None if the file states none. Our files state the
    answers' coordinate space in `meta`; of other tools' logs `coordinate_space` holds it, if known.
    """

    model_config = ConfigDict(extra="allow")

    accuracy: FiniteFloat | None
    results: list[ResultRow]
    meta: dict[str, Any] | None = None
    coordinate_space: str | None = None


def read_results(path: Path) -> ResultFile:
    """Read a result file or a VLM-R1 log.

    Raises:
        ResultError: the file is missing, is not JSON, or a row lacks a key (file and row named).
    """
    try:
        return ResultFile.model_validate_json(read_text(path))
    except ValidationError as error:
        raise unusable_file(path, describe_fault(error, rows="results")) from None


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
    """The error for a log that cannot be used; says so if the file is cut short."""
    cut = " (the file is cut short)" if "EOF" in fault else ""
    return ResultError(
        got=f"{path}: {fault}{cut}",
        need='an object {"accuracy": percent, "results": [rows]} as VLM-R1 writes it',
        because="scores are recomputed from the rows",
        do="check the path, or write the log again",
    )


def write_results(path: Path, result: ResultFile) -> None:
    """Write a result file, whole or not at all."""
    write_json(path, result.model_dump(mode="json", exclude_unset=True))
