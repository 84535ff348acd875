"""SFT rows as LLaMA-Factory reads them (VLM-R1's mllm_rec_json.json): messages and one image."""

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from vlm_r1.data.readers.base import Found, Reading, Source, collect, image_path
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


def read_llama_factory(source: Source) -> Reading:
    """Rows of a .json array or of .jsonl lines; sizes come from the images' headers.

    Raises:
        DataError: the file is missing, broken, empty, or no array.
    """
    parse = partial(_parse_row, images=source.images)
    return collect(source, read_rows(source.path, source.name), parse)


def _parse_row(row: Any, images: Path | None) -> list[Found]:
    known = _ROW.validate_python(row)
    if len(known["images"]) != 1:
        raise ValueError(
            f"images: {len(known['images'])} images {known['images']}; only rows of one can be read"
        )
    question, answer = known["messages"]
    return [
        Found(
            image=image_path(relative_name(known["images"][0], images)),
            expression=bare_expression(question["content"]),
            box=box_in_answer(answer["content"]),
            id=known.get("id"),
        )
    ]


def relative_name(image: str, images: Path | None) -> str:
    """An image's name under the folder `images`.

    A relative path is taken as it is, one that lies in the folder is shortened. Of any other
    absolute path, as the authors' /data/shz/dataset/coco/train2014/x.jpg, folder and file stay:
    train2014/x.jpg, as VLM-R1's other files call it.
    """
    path = PurePosixPath(image)
    if not path.is_absolute():
        return image
    if images is not None and path.is_relative_to(images.resolve().as_posix()):
        return str(path.relative_to(images.resolve().as_posix()))
    return "/".join(path.parts[1:][-2:])
