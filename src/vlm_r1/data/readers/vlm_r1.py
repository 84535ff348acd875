"""VLM-R1's own files: rows with a `solution` (rec_jsons_processed, LISA) or `conversations`."""

from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from vlm_r1.data.readers.base import (
    InputFile,
    ParsedRow,
    ReadResult,
    collect,
    image_path,
    single_image,
)
from vlm_r1.data.readers.conversations import (
    Box,
    bare_expression,
    box_in_answer,
    objects_in_answer,
    targets_of,
)
from vlm_r1.data.readers.json_rows import read_rows
from vlm_r1.rec.objects import LabeledBox, boxes_of, hull, objects_text
from vlm_r1.rec.reward_names import BOX_REWARDS

# VLM-R1's `accu_reward_method` -> our reward; the other methods judge answers that are no boxes
REWARD_METHODS = {None: "", "default": "", "odLength": "odlength"} | {n: n for n in BOX_REWARDS}
Side = Annotated[int, Field(ge=1)]
Id = int | str | None


@with_config(ConfigDict(strict=True))
class _Row(TypedDict):
    """The keys that are read; the others are derived from these or unused."""

    image: str
    width: NotRequired[Side]
    height: NotRequired[Side]
    normal_caption: NotRequired[str | None]
    problem: NotRequired[str | None]
    original_id: NotRequired[Id]
    id: NotRequired[Id]
    split: NotRequired[str | None]
    dataset_name: NotRequired[str | None]
    record_id: NotRequired[str]
    accu_reward_method: NotRequired[str | None]


_Turn = TypedDict("_Turn", {"from": str, "value": Any})


@with_config(ConfigDict(strict=True))
class _SolutionRow(_Row):
    solution: Box


@with_config(ConfigDict(strict=True))
class _ConversationRow(_Row):
    conversations: Annotated[list[_Turn], Field(min_length=2, max_length=2)]


_SOLUTION, _CONVERSATION = TypeAdapter(_SolutionRow), TypeAdapter(_ConversationRow)


def read_vlm_r1(source: InputFile) -> ReadResult:
    """Rows of a .json array or .jsonl lines; `solution` is the box in original pixels.

    Raises:
        DataError: the file is missing, broken, empty, or not an array.
    """
    return collect(source, read_rows(source.path, source.name), _parse_row)


def _parse_row(row: Any) -> list[ParsedRow]:
    if isinstance(row, dict) and isinstance(row.get("image"), list):
        row = row | {"image": single_image(row["image"], "image")}
    if isinstance(row, dict) and "conversations" in row:
        conversation = _CONVERSATION.validate_python(row)
        question, answer = conversation["conversations"]
        targets = targets_of(str(question["value"]))
        if targets is not None:
            return [_detection(conversation, targets, objects_in_answer(answer["value"]))]
        box = box_in_answer(answer["value"])
        conversation.setdefault("problem", str(question["value"]))
        return [_parsed(conversation, _expression(conversation), box)]
    solution = _SOLUTION.validate_python(row)
    return [_parsed(solution, _expression(solution), solution["solution"])]


def _detection(row: _Row, targets: str, objects: list[LabeledBox]) -> ParsedRow:
    """A row of open-vocabulary detection."""
    box = hull(boxes_of(objects)).tolist()
    return _parsed(row, targets, box)._replace(objects=objects_text(objects))


def _parsed(row: _Row, expression: str, box: list[float]) -> ParsedRow:
    return ParsedRow(
        image=image_path(row["image"]),
        expression=expression,
        box=box,
        width=row.get("width"),
        height=row.get("height"),
        id=row.get("id"),
        source_id=row.get("original_id"),
        split=row.get("split") or "",
        dataset=row.get("dataset_name"),
        record_id=row.get("record_id"),
        accuracy_reward=_accuracy_reward(row.get("accu_reward_method")),
    )


def _accuracy_reward(method: str | None) -> str:
    """Our name of VLM-R1's `accu_reward_method`; "" for its default."""
    if method not in REWARD_METHODS:
        known = ", ".join(map(str, REWARD_METHODS))
        raise ValueError(f"accu_reward_method: {method!r} is none of {known}")
    return REWARD_METHODS[method]


def _expression(row: _Row) -> str:
    caption, problem = row.get("normal_caption"), row.get("problem")
    if caption is not None:
        return caption
    if problem is None:
        raise ValueError("neither normal_caption nor problem")
    return bare_expression(problem)
