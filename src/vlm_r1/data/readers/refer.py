"""Datasets of the REFER API: `refs(<split by>).p` next to `instances.json` (RefCOCO/+/g, RefGTA).

Layouts: github.com/lichengunc/refer, and github.com/mikittt/easy-to-understand-REG (refer2).
Image names come from `images`: the `file_name` of a ref also contains the annotation's number.
"""

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from vlm_r1.data.readers.base import (
    InputFile,
    ParsedRow,
    ReadResult,
    collect,
    image_path,
    unusable,
    xyxy_from_xywh,
)
from vlm_r1.data.readers.conversations import Box
from vlm_r1.data.readers.json_rows import parse_json, read_bytes
from vlm_r1.data.readers.pickles import read_plain_pickle
from vlm_r1.errors import describe_fault

NEED = "refs(<split by>).p, a pickled list of refs, next to the instances.json they refer to"


@with_config(ConfigDict(strict=True))
class _Sentence(TypedDict):
    sent: str
    sent_id: int


@with_config(ConfigDict(strict=True))
class _Ref(TypedDict):
    ann_id: int
    split: str
    sentences: list[_Sentence]


@with_config(ConfigDict(strict=True))
class _Image(TypedDict):
    id: int
    width: int
    height: int
    file_name: str


@with_config(ConfigDict(strict=True))
class _Annotation(TypedDict):
    id: int
    image_id: int
    bbox: Box  # x, y, width, height


@with_config(ConfigDict(strict=True))
class _Instances(TypedDict):
    images: list[_Image]
    annotations: list[_Annotation]


_REF, _INSTANCES = TypeAdapter(_Ref), TypeAdapter(_Instances)


def read_refer(source: InputFile) -> ReadResult:
    """One record per sentence (`sent`) of all splits; row numbers count refs.

    Raises:
        DataError: a file is missing or broken, or the pickle would build anything but plain values.
    """
    refs = read_plain_pickle(source.path, source.name)
    if not isinstance(refs, list):
        raise unusable(source.name, f"a pickled {type(refs).__name__}", NEED)
    tables = _read_instances(source.path.with_name("instances.json"))
    return collect(source, enumerate(refs, start=1), lambda ref: _parse_ref(ref, *tables))


def _read_instances(path: Path) -> tuple[dict[int, _Image], dict[int, _Annotation]]:
    """Images and annotations by id."""
    values = parse_json(read_bytes(path, str(path)), str(path), NEED)
    try:
        instances = _INSTANCES.validate_python(values)
    except ValidationError as error:
        raise unusable(str(path), describe_fault(error), NEED) from None
    images = {image["id"]: image for image in instances["images"]}
    return images, {annotation["id"]: annotation for annotation in instances["annotations"]}


def _parse_ref(
    ref: Any, images: dict[int, _Image], annotations: dict[int, _Annotation]
) -> list[ParsedRow]:
    fields = _REF.validate_python(ref)
    annotation = annotations.get(fields["ann_id"])
    if annotation is None:
        raise ValueError(f"ann_id: {fields['ann_id']} is not in instances.json")
    image = images.get(annotation["image_id"])
    if image is None:
        raise ValueError(f"image_id: {annotation['image_id']} is not in instances.json")
    return [
        ParsedRow(
            image=image_path(image["file_name"]),
            expression=sentence["sent"],
            box=xyxy_from_xywh(*annotation["bbox"]),
            width=image["width"],
            height=image["height"],
            id=sentence["sent_id"],
            source_id=fields["ann_id"],
            split=fields["split"],
        )
        for sentence in fields["sentences"]
    ]
