"""The three tables that the checks look at: rows, records with what is known of them, splits."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from vlm_r1.data.readers.base import PLACE, Reading
from vlm_r1.data.records import BOX
from vlm_r1.data.validation.image_inspection import Finding
from vlm_r1.data.validation.leakage import Leak
from vlm_r1.data.validation.published_counts import PUBLISHED

_COLUMN_OF = {  # Finding -> column
    "fault": "image_fault",
    "width": "image_width",
    "height": "image_height",
    "mode": "image_mode",
    "suffix_fault": "suffix_fault",
    "turned": "turned",
}


def row_table(reading: Reading) -> pd.DataFrame:
    """file, row, record_id and fault (None if it was read) of every row."""
    read = reading.records[[*PLACE, "record_id"]].assign(fault=None)
    unread = reading.unread.rename(columns={"id": "record_id"})
    return pd.concat([read.astype(object), unread.astype(object)], ignore_index=True)


def record_table(
    reading: Reading,
    folder: Path,
    findings: Mapping[Path, Finding] | None,
    leaks: list[Leak],
) -> pd.DataFrame:
    """The records with box_side_px, overhang_px, boxes_of_id, the image's facts and its twin."""
    table = reading.records.copy()
    sides = np.stack([table["x2"] - table["x1"], table["y2"] - table["y1"]])
    table["box_side_px"] = sides.min(axis=0)
    beyond = (
        -table["x1"],
        -table["y1"],
        table["x2"] - table["width"],
        table["y2"] - table["height"],
    )
    table["overhang_px"] = np.stack(beyond).max(axis=0)
    table["boxes_of_id"] = _boxes_of_id(table)
    if findings is not None:
        table = _with_images(table, folder, findings)
    twins = {leak.image: leak for leak in reversed(leaks)}
    table["against_image"] = [_told(twins.get(image), "against_image") for image in table["image"]]
    table["by"] = [_told(twins.get(image), "by") for image in table["image"]]
    return table


def split_table(name: str, reading: Reading, published: str | None) -> pd.DataFrame:
    """file, row, record_id (both unknown), split, rows, and how many the authors say (0: none)."""
    counts = reading.records["split"].value_counts(sort=False)
    said = PUBLISHED.get(published or "", {})
    return pd.DataFrame(
        {
            "file": name,
            "row": None,
            "record_id": None,
            "split": list(counts.index),
            "rows": counts.to_numpy(),
            "published": [said.get(split, 0) for split in counts.index],
        }
    )


def _boxes_of_id(table: pd.DataFrame) -> pd.Series:
    """How many boxes there are under a record's id, or under its source id in its image."""
    box = table.groupby(BOX, sort=False, dropna=False).ngroup()
    of_record = box.groupby(table["record_id"], sort=False).transform("nunique")
    of_source = box.groupby([table["image"], table["source_id"]], sort=False).transform("nunique")
    return of_record.where(table["source_id"] == "", np.maximum(of_record, of_source))


def _with_images(
    table: pd.DataFrame, folder: Path, findings: Mapping[Path, Finding]
) -> pd.DataFrame:
    names = table["image"].unique()
    found = [findings[folder / name] for name in names]
    images = pd.DataFrame(found, columns=Finding._fields)[list(_COLUMN_OF)]
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


def _told(leak: Leak | None, field: str) -> str | None:
    return None if leak is None else getattr(leak, field)
