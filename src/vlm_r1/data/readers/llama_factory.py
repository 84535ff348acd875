"""SFT rows in LLaMA-Factory's layout (VLM-R1's mllm_rec_json.json): messages and one image."""

from functools import partial
from pathlib import Path, PurePosixPath
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
from vlm_r1.data.readers.conversations import bare_expression, box_in_answer
from vlm_r1.data.readers.json_rows import read_rows


@with_config(ConfigDict(strict=True))
class _Message(TypedDict):
    role: str
    content: str


@with_config(ConfigDict(strict=True))
class _Row(TypedDict):
    messages: Annotated[list[_Message], Field(min_length=2, max_length=2)]
    images: list[str]
    id: NotRequired[int | str]


_ROW = TypeAdapter(_Row)


def read_llama_factory(source: InputFile) -> ReadResult:
    """Rows of a .json array or .jsonl lines; sizes come from the images' headers.

    Raises:
        DataError: the file is missing, broken, empty, or not an array.
    """
    parse = partial(_parse_row, images=source.images)
    return collect(source, read_rows(source.path, source.name), parse)


def _parse_row(row: Any, images: Path | None) -> list[ParsedRow]:
    fields = _ROW.validate_python(row)
    image = single_image(fields["images"], "images")
    question, answer = fields["messages"]
    return [
        ParsedRow(
            image=image_path(relative_name(image, images)),
            expression=bare_expression(question["content"]),
            box=box_in_answer(answer["content"]),
            id=fields.get("id"),
        )
    ]


def relative_name(image: str, images: Path | None) -> str:
    """Path of an image relative to the folder `images`.

    Relative paths stay as they are; absolute paths inside the folder are made relative to it. Of
    other absolute paths, such as VLM-R1's /data/shz/dataset/coco/train2014/x.jpg, the last folder
    and the file remain: train2014/x.jpg, as in VLM-R1's other files.
    """
    path = PurePosixPath(image)
    if not path.is_absolute():
        return image
    if images is not None and path.is_relative_to(images.resolve().as_posix()):
        return str(path.relative_to(images.resolve().as_posix()))
    return "/".join(path.parts[1:][-2:])
