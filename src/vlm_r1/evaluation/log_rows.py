"""Rows of other tools' logs under VLM-R1's names: fields, nested values, boxes, answers.

lmms-eval's sample logs (`--log_samples`) are recognised by their fields. Tasks that
`vlm-r1 export lmms-eval` wrote have a whole row of ours in them.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from vlm_r1.errors import ResultError
from vlm_r1.evaluation.box_formats import BoxFormats, as_corners
from vlm_r1.rec.results import unusable_file

ROW_FIELDS = {
    "truth": "ground_truth",  # original pixels
    "completion": "model_output",  # text, or the box itself
    "box": "extracted_answer",
    "question": "question",
    "image": "image",
    "id": "record_id",
    "image_size": "image_size",  # height, width
    "width": "width",  # of the image, if there is no image_size
    "height": "height",
    "input_size": "input_size",  # height, width after the processor's resize
    "correct": "correct",  # 0 or 1
}
LMMS_EVAL_FIELDS = {
    "truth": "target",
    "completion": "filtered_resps",
    "question": "input",
    "id": "doc_id",
}
EXPORTED_ROW = "vlm_r1_row"  # in the sample logs of our own tasks (export/lmms_eval_task.py)
ABSENT = object()


def result_rows(
    path: Path, listed: Sequence[Any], fields: Mapping[str, str], formats: BoxFormats
) -> list[dict[str, Any]]:
    """The rows under VLM-R1's names, boxes as xyxy; a value the log does not give is None.

    An answer without a box (prose, an empty list, a box field that only other rows have) is a row
    without `extracted_answer`, which scores as wrong.

    Args:
        fields: role of `ROW_FIELDS` -> its name in this log.

    Raises:
        ResultError: a row is no object, or lacks its true box, its answer or a named field.
    """
    for number, raw in enumerate(listed, start=1):
        if not isinstance(raw, dict):
            raise unusable_file(path, f"row {number}: not an object")
    box_is_known = any(
        "box" in fields and look_up(raw, fields["box"]) is not ABSENT for raw in listed
    )
    optional = {"box"} if box_is_known else set()
    return [
        _result_row(path, number, raw, fields, formats, optional)
        for number, raw in enumerate(listed, start=1)
    ]


def stated_space(listed: Sequence[Any]) -> str | None:
    """The coordinate space that all rows of an exported task state; None for any other log."""
    name = f"{EXPORTED_ROW}/coordinate_space"
    found = [look_up(raw, name) if isinstance(raw, dict) else ABSENT for raw in listed]
    spaces = {space for space in found if isinstance(space, str)}
    return spaces.pop() if len(spaces) == 1 and ABSENT not in found else None


def look_up(content: dict[str, Any], name: str) -> Any:
    """The value called `name`, else the one its parts lead to, else `ABSENT`.

    Parts are joined by slashes if the name has one, else by dots.
    """
    if name in content:
        return content[name]
    value: Any = content
    for part in name.split("/" if "/" in name else "."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return ABSENT
    return value


def _result_row(
    path: Path,
    number: int,
    raw: dict[str, Any],
    fields: Mapping[str, str],
    formats: BoxFormats,
    optional: set[str],
) -> dict[str, Any]:
    names = _default_names(raw) | {role: fields[role] for role in ROW_FIELDS if role in fields}
    found = {role: look_up(raw, name) for role, name in names.items()}
    required = ["truth", *(r for r in fields if r in ROW_FIELDS and r not in optional)]
    if found["completion"] is found["box"] is ABSENT and not optional:
        required.append("completion")
    for role in required:
        if found[role] is ABSENT:
            raise _lacking_field(path, number, raw, names[role], role)
    row = {role: None if value is ABSENT else value for role, value in found.items()}
    text, box = _answer(path, number, row["completion"], row["box"])
    return {
        "question": "" if row["question"] is None else row["question"],
        "ground_truth": _corners(_written(row["truth"]), formats.truth),
        "model_output": text,
        "extracted_answer": _corners(box, formats.answer),
        "correct": row["correct"],
        "image": row["image"],
        "image_size": _image_size(row),
        "input_size": row["input_size"],
        "record_id": row["id"],
    }


def _default_names(raw: Mapping[str, Any]) -> dict[str, str]:
    """Role -> name in a row, for the layout that the row has."""
    if not {"doc_id", "filtered_resps"} <= raw.keys():
        return ROW_FIELDS
    if EXPORTED_ROW in raw:
        return {role: f"{EXPORTED_ROW}/{name}" for role, name in ROW_FIELDS.items()}
    return ROW_FIELDS | LMMS_EVAL_FIELDS


def _answer(path: Path, number: int, completion: Any, box: Any) -> tuple[str, Any]:
    """The answer's text and the box that the log has extracted, None if it has none.

    A tool may write the box as the completion, or text in the field of the box.
    """
    texts = completion if isinstance(completion, list) else []
    if texts and all(isinstance(text, str) for text in texts) and not _is_box(texts):
        if len(texts) > 1:
            raise _several_answers(path, number, len(texts))
        completion = texts[0]
    if isinstance(completion, list):
        completion, box = None, completion if box is None else box
    if isinstance(box, str):
        completion, box = box if completion is None else completion, None
    if isinstance(box, list) and len(box) == 1:
        box = box[0]
    return "" if completion is None else completion, box if _is_box(box) else None


def _is_box(value: Any) -> bool:
    """Whether a value is four numbers; NaN and infinity are refused later, with their row."""
    if not isinstance(value, list | tuple) or len(value) != 4:
        return False
    try:
        return all(isinstance(float(side), float) for side in value)
    except (TypeError, ValueError):
        return False


def _written(box: Any) -> Any:
    """A box that may be written as text, as lmms-eval's `target` is."""
    if not isinstance(box, str):
        return box
    try:
        return from_json(box)
    except ValueError:
        return box


def _corners(box: Any, box_format: str) -> Any:
    """A box as xyxy; what is not four finite numbers is left for the check of the row."""
    if not _is_box(box) or not all(math.isfinite(float(side)) for side in box):
        return box
    return as_corners([float(side) for side in box], box_format)


def _image_size(row: Mapping[str, Any]) -> Any:
    """The image's (height, width): its own field, else from `height` and `width`."""
    if row["image_size"] or row["height"] is None or row["width"] is None:
        return row["image_size"]
    return row["height"], row["width"]


def _lacking_field(
    path: Path, number: int, raw: dict[str, Any], name: str, role: str
) -> ResultError:
    return ResultError(
        got=f"{path}: row {number}: {name}: no such field among {', '.join(map(repr, raw))}",
        need="in every row a true box and a completion, and each field that was named",
        because="leaving out a row would change the score",
        do=f"--field {role}=NAME says what the field is called",
    )


def _several_answers(path: Path, number: int, count: int) -> ResultError:
    return ResultError(
        got=f"{path}: row {number}: {count} answers",
        need="one answer in every row",
        because="a score is that of one answer to each question",
        do="--field completion=NAME/0 takes the first of them",
    )
