"""The three tables that the checks run on: rows, records with derived columns, splits."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from vlm_r1.data.readers.base import PLACE, ReadResult
from vlm_r1.data.records import BOX, optional_values
from vlm_r1.data.validation.image_inspection import ImageFacts
from vlm_r1.data.validation.leakage import Kind, Leak
from vlm_r1.data.validation.published_counts import PUBLISHED
from vlm_r1.rec.objects import boxes_of, read_objects

_COLUMN_OF = {  # field of ImageFacts -> column
    "fault": "image_fault",
    "width": "image_width",
    "height": "image_height",
    "mode": "image_mode",
    "suffix_fault": "suffix_fault",
    "turned": "turned",
}


def row_table(rows: ReadResult) -> pd.DataFrame:
    """file, row, record_id and fault (None if it could be read) of every row."""
    read = rows.records[[*PLACE, "record_id"]].assign(fault=None)
    unread = rows.unread.rename(columns={"id": "record_id"})
    return pd.concat([read.astype(object), unread.astype(object)], ignore_index=True)


def record_table(
    rows: ReadResult,
    folder: Path,
    facts: Mapping[Path, ImageFacts] | None,
    leaks: list[Leak],
) -> pd.DataFrame:
    """The records with further columns that the checks need.

    box_side_px: the shorter side of the box, or the shortest of the objects'.
    overhang_px: how far the box leaves the image.
    boxes_of_id: see `_boxes_of_id`. image_*, suffix_fault, before_turn: facts of the image, unless
    `facts` is None. against_image, by: the first leak of the image between training and evaluation;
    tested_image, tested_by: the first between validation and a test set.
    """
    table = rows.records.copy()
    table["box_side_px"] = _shortest_sides(table)
    beyond = (
        -table["x1"],
        -table["y1"],
        table["x2"] - table["width"],
        table["y2"] - table["height"],
    )
    table["overhang_px"] = np.stack(beyond).max(axis=0)
    table["boxes_of_id"] = _boxes_of_id(table)
    if facts is not None:
        table = _with_image_facts(table, folder, facts)
    table[["against_image", "by"]] = _first_leaks(table["image"], leaks, "training")
    table[["tested_image", "tested_by"]] = _first_leaks(table["image"], leaks, "choice")
    return table


def _shortest_sides(records: pd.DataFrame) -> np.ndarray:
    """The shortest side (n,) of each record's box, or of all boxes of its objects."""
    corners = records[BOX].to_numpy(dtype=float)
    sides = (corners[:, 2:] - corners[:, :2]).min(axis=1)
    for i, text in enumerate(optional_values(records, "objects")):
        if text:
            boxes = boxes_of(read_objects(text))
            sides[i] = min([sides[i], *(boxes[:, 2:] - boxes[:, :2]).min(axis=1)])
    return sides


def _first_leaks(images: pd.Series, leaks: list[Leak], kind: Kind) -> np.ndarray:
    """(rows, 2): the other dataset's image and the sign of each image's first leak, or None."""
    ours = [leak for leak in reversed(leaks) if leak.kind == kind]
    first = {leak.image: (leak.against_image, leak.by) for leak in ours}
    found = np.full((len(images), 2), None, dtype=object)
    for row, image in enumerate(images):
        found[row] = first.get(image, (None, None))
    return found


def split_table(name: str, rows: ReadResult, published: str | None) -> pd.DataFrame:
    """file, row and record_id (both None), split, rows, and the published count (0: unknown)."""
    counts = rows.records["split"].value_counts(sort=False)
    expected = PUBLISHED.get(published or "", {})
    return pd.DataFrame(
        {
            "file": name,
            "row": None,
            "record_id": None,
            "split": list(counts.index),
            "rows": counts.to_numpy(),
            "published": [expected.get(split, 0) for split in counts.index],
        }
    )


def _boxes_of_id(table: pd.DataFrame) -> pd.Series:
    """Number of distinct boxes with a record's id, or with its source id in its image."""
    box = table.groupby(BOX, sort=False, dropna=False).ngroup()
    of_record = box.groupby(table["record_id"], sort=False).transform("nunique")
    of_source = box.groupby([table["image"], table["source_id"]], sort=False).transform("nunique")
    return of_record.where(table["source_id"] == "", np.maximum(of_record, of_source))


def _with_image_facts(
    table: pd.DataFrame, folder: Path, facts: Mapping[Path, ImageFacts]
) -> pd.DataFrame:
    names = table["image"].unique()
    rows = [facts[folder / name] for name in names]
    images = pd.DataFrame(rows, columns=ImageFacts._fields)[list(_COLUMN_OF)]
    images = images.rename(columns=_COLUMN_OF).assign(image=pd.array(names, dtype="str"))
    images = images.astype(
        dict.fromkeys(("image_fault", "image_mode", "suffix_fault", "turned"), object)
        | {"image_width": float, "image_height": float}
    )
    table = table.merge(images, on="image", how="left", validate="many_to_one")
    swapped = (table["width"] == table["image_height"]) & (table["height"] == table["image_width"])
    square = table["width"] == table["height"]
    table["before_turn"] = swapped & ~square & (table.pop("turned") == True)  # noqa: E712
    return table
