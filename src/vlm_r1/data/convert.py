"""A dataset's file in another format: our records.parquet, or rows of VLM-R1."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from vlm_r1.data.readers import guess_format, read
from vlm_r1.data.readers.base import Source, require_all_read
from vlm_r1.data.records import write_records
from vlm_r1.data.synthetic.dataset import normalized
from vlm_r1.data.validation.leakage import COCO
from vlm_r1.files import write_text
from vlm_r1.rec.prompts import question_for


def convert_file(
    path: Path,
    source_format: str | None,
    target: str,
    out: Path,
    images: Path | None = None,
    split: str | None = None,
) -> int:
    """Read a file (format None: as its suffix tells) and write it as `target`; returns the count.

    Raises:
        DataError: a row is no record, or the file has no such split; nothing is written then.
    """
    source = Source(path, str(path), split=split, images=images)
    reading = read(source_format or guess_format(path), source)
    require_all_read(reading)
    write_as(target, out, reading.records)
    return len(reading.records)


def write_as(target: str, path: Path, records: pd.DataFrame) -> None:
    """Write records as `records` (Parquet) or as `vlm-r1` (a JSON array; lines if *.jsonl).

    Nothing of a record is lost: read again, the file gives the same records.
    """
    if target == "records":
        write_records(path, records)
        return
    lines = [json.dumps(row, ensure_ascii=False) for row in vlm_r1_rows(records)]
    text = "\n".join(lines) if path.suffix == ".jsonl" else "[\n" + ",\n".join(lines) + "\n]"
    write_text(path, text)


def vlm_r1_rows(records: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The keys of rec_jsons_processed that records tell, and record_id and split on top.

    area, iscrowd and category_id are left out: records do not hold them and nobody reads them.
    """
    for record in records.to_dict("records"):
        x1, y1, x2, y2 = box = [record[corner] for corner in ("x1", "y1", "x2", "y2")]
        coco = COCO.search(record["image"])
        tail = record["record_id"].removeprefix(f"{record['dataset']}:")
        yield {
            "height": record["height"],
            "width": record["width"],
            "id": int(tail) if tail.isdecimal() else tail,
            "original_id": _number(record["source_id"]),
            "dataset_name": record["dataset"],
            **({"image_id": int(coco[1])} if coco else {}),
            "bbox_list": [[x1, y1, x2 - 1, y2 - 1]],
            "text_type": "caption",
            "image": record["image"],
            "problem": question_for(record["expression"]),
            "normal_caption": record["expression"],
            "solution": box,
            "normalized_solution": normalized(box, record["width"], record["height"]),
            "record_id": record["record_id"],
            "split": record["split"],
        }


def _number(text: str) -> int | str:
    """`text` as a number where that is written back the same."""
    return int(text) if text.isdecimal() and str(int(text)) == text else text
