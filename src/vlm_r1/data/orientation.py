"""EXIF orientation: boxes and sizes from stored pixels to the upright image.

A camera may store the pixels as its sensor was held, and note in EXIF how to turn them.
`open_image` turns them, so the boxes and sizes of records must refer to the upright image.
Annotation tools that ignore EXIF write coordinates of the stored pixels; `exif: ignored` of a
dataset declares that, and `upright_records` converts its records when they are prepared.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from vlm_r1.data.images import QUARTER_TURNS, read_header
from vlm_r1.data.records import BOX
from vlm_r1.rec.objects import LabeledBox, boxes_of, objects_text, read_objects

# For upright x and y: the stored axis it runs along, and whether in the opposite direction.
# From EXIF 2.32, tag 274, which names the sides that stored row 0 and column 0 become.
_AXES = {
    1: (("x", False), ("y", False)),
    2: (("x", True), ("y", False)),
    3: (("x", True), ("y", True)),
    4: (("x", False), ("y", True)),
    5: (("y", False), ("x", False)),
    6: (("y", True), ("x", False)),
    7: (("y", True), ("x", True)),
    8: (("y", False), ("x", True)),
}


def upright_boxes(boxes: np.ndarray, width: int, height: int, orientation: int) -> np.ndarray:
    """Convert boxes (n, 4), xyxy, from stored pixels to pixels of the upright image.

    Example: stored 40 x 20, orientation 6 (a quarter clockwise): [1, 2, 5, 8] -> [12, 1, 18, 5].

    Args:
        width, height: of the stored image.
        orientation: EXIF's 1 to 8.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    low = {"x": boxes[:, 0], "y": boxes[:, 1]}
    high = {"x": boxes[:, 2], "y": boxes[:, 3]}
    side = {"x": width, "y": height}
    spans = [
        (side[axis] - high[axis], side[axis] - low[axis]) if opposite else (low[axis], high[axis])
        for axis, opposite in _AXES[orientation]
    ]
    (x1, x2), (y1, y2) = spans
    return np.stack([x1, y1, x2, y2], axis=-1)


def upright_records(records: pd.DataFrame, images: Path) -> pd.DataFrame:
    """Records whose sizes and boxes ignore EXIF, converted to the upright images; order is kept.

    Reads the header of every distinct image. If the stated size was not that of the stored
    pixels, it is still wrong after the conversion, and validation reports it.

    Raises:
        DataError: an image is missing or no image.
    """
    turned = records.copy()
    for image, rows in records.groupby("image", sort=False).groups.items():
        width, height, orientation = read_header(images / str(image))
        if orientation == 1:
            continue
        turn = partial(upright_boxes, width=width, height=height, orientation=orientation)
        turned.loc[rows, BOX] = turn(records.loc[rows, BOX].to_numpy(dtype=float))
        if "objects" in records:
            turned.loc[rows, "objects"] = [
                _turned_objects(text, turn) for text in records.loc[rows, "objects"]
            ]
        if orientation in QUARTER_TURNS:
            turned.loc[rows, ["width", "height"]] = records.loc[
                rows, ["height", "width"]
            ].to_numpy()
    return turned


def _turned_objects(text: str, turn: Callable[[np.ndarray], np.ndarray]) -> str:
    """The objects of a record with their boxes turned; "" stays."""
    if not text:
        return text
    objects = read_objects(text)
    boxes = turn(boxes_of(objects)).tolist()
    return objects_text(
        [LabeledBox(tuple(box), label) for box, (_, label) in zip(boxes, objects, strict=True)]
    )
