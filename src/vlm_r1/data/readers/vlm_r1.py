"""VLM-R1's own files: rows with a `solution` (rec_jsons_processed, LISA) or `conversations`."""

from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from vlm_r1.data.readers.base import Found, Reading, Source, collect, image_path
from vlm_r1.data.readers.conversations import Box, bare_expression, box_in_answer
from vlm_r1.data.readers.json_rows import read_rows

Side = Annotated[int, Field(ge=1)]
Id = int | str | None


@with_config(ConfigDict(strict=True))
class _Row(TypedDict):
    """The keys that are read; the other ones are derived or unused."""

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


@with_config(ConfigDict(strict=True))
class _SolutionRow(_Row):
    solution: Box


@with_config(ConfigDict(strict=True))
class _TalkRow(_Row):
    conversations: Annotated[
        list[TypedDict("_Turn", {"from": str, "value": Any})], Field(min_length=2, max_length=2)
    ]


_SOLUTION, _TALK = TypeAdapter(_SolutionRow), TypeAdapter(_TalkRow)


def read_vlm_r1(source: Source) -> Reading:
    """Rows of a .json array or of .jsonl lines; `solution` is taken as it is.

    Raises:
        DataError: the file is missing, broken, empty, or no array.
    """
    return collect(source, read_rows(source.path, source.name), parse_row)


def parse_row(row: Any) -> list[Found]:
    """One VLM-R1 row.

    Raises:
        ValueError: a key is missing or wrong, or the row is about several images.
    """
    row = _about_one_image(row)
    if isinstance(row, dict) and "conversations" in row:
        known = _TALK.validate_python(row)
        question, answer = known["conversations"]
        box = box_in_answer(answer["value"])
        known.setdefault("problem", str(question["value"]))
    else:
        known = _SOLUTION.validate_python(row)
        box = known["solution"]
    found = Found(
        image=image_path(known["image"]),
        expression=_expression(known),
        box=box,
        width=known.get("width"),
        height=known.get("height"),
        id=known.get("id"),
        source_id=known.get("original_id"),
        split=known.get("split") or "",
        dataset=known.get("dataset_name"),
        record_id=known.get("record_id"),
    )
    return [found]


def _about_one_image(row: Any) -> Any:
    """The row with a list of one image taken out of its list."""
    if not isinstance(row, dict) or not isinstance(row.get("image"), list):
        return row
    names = row["image"]
    if len(names) != 1:
        raise ValueError(f"image: {len(names)} images {names}; only rows of one can be read")
    return row | {"image": names[0]}


def _expression(row: _Row) -> str:
    if row.get("normal_caption") is not None:
        return row["normal_caption"]
    if row.get("problem") is None:
        raise ValueError("neither normal_caption nor problem")
    return bare_expression(row["problem"])
