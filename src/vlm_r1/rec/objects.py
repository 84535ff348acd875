"""Objects of open-vocabulary detection: all boxes that a list of targets asks for, each labeled.

Text and numpy only. As JSON an object is `{"bbox_2d": [x1, y1, x2, y2], "label": "target name"}`,
as in VLM-R1's OVD rows and answers.
"""

import json
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, with_config
from typing_extensions import TypedDict

from vlm_r1.rec.parsing import Xyxy


class LabeledBox(NamedTuple):
    """One object: xyxy, and the name of its target."""

    box: Xyxy
    label: str


@with_config(ConfigDict(strict=True))
class _Object(TypedDict):
    bbox_2d: Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)]
    label: str


_OBJECTS = TypeAdapter(list[_Object])


def objects_from(values: object) -> list[LabeledBox]:
    """The objects in decoded JSON.

    Raises:
        ValueError: another layout, or corners that are not in order.
    """
    objects = [
        LabeledBox(_xyxy(o["bbox_2d"]), o["label"]) for o in _OBJECTS.validate_python(values)
    ]
    for number, (box, _) in enumerate(objects, start=1):
        if box[0] >= box[2] or box[1] >= box[3]:
            raise ValueError(f"object {number}: bbox_2d {list(box)}, need x1 < x2 and y1 < y2")
    return objects


def objects_text(objects: Sequence[LabeledBox]) -> str:
    """One line of JSON, as records hold them."""
    values = [{"bbox_2d": list(box), "label": label} for box, label in objects]
    return json.dumps(values, ensure_ascii=False)


def read_objects(text: str) -> list[LabeledBox]:
    """The inverse of `objects_text`."""
    return [LabeledBox(_xyxy(o["bbox_2d"]), o["label"]) for o in json.loads(text)]


def boxes_of(objects: Sequence[LabeledBox]) -> np.ndarray:
    """The boxes, (k, 4)."""
    return np.reshape([box for box, _ in objects], (-1, 4)).astype(np.float64)


def hull(boxes: np.ndarray) -> np.ndarray:
    """The smallest box (4,) around boxes (k, 4), in whatever order their corners; NaN around none.

    Example: (0, 0, 10, 10) and (20, 5, 30, 8) -> (0, 0, 30, 10)
    """
    if len(boxes) == 0:
        return np.full(4, np.nan)
    corners = np.reshape(boxes, (-1, 2))
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def _xyxy(values: Sequence[float]) -> Xyxy:
    x1, y1, x2, y2 = map(float, values)
    return x1, y1, x2, y2
