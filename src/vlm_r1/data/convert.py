"""Conversion of a dataset's file to records.parquet or to VLM-R1's JSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from vlm_r1.data.readers import guess_format, read
from vlm_r1.data.readers.base import InputFile, require_all_read
from vlm_r1.data.records import BOX, write_records
from vlm_r1.data.synthetic.dataset import normalized
from vlm_r1.data.validation.leakage import COCO_ID
from vlm_r1.files import write_text
from vlm_r1.rec.objects import read_objects
from vlm_r1.rec.prompts import boxes_answer, question_for


def convert_file(
    path: Path,
    source_format: str | None,
    target: str,
    out: Path,
    images: Path | None = None,
    split: str | None = None,
) -> int:
    """Read a file, write it in the format `target`, and return the number of records.

    Args:
        source_format: None: guessed from the suffix.
        target: `records` (Parquet) or `vlm-r1` (a JSON array; one object per line if *.jsonl).

    Raises:
        DataError: a row is not a record, or the file has no such split; nothing is written then.
    """
    source = InputFile(path, str(path), split=split, images=images)
    result = read(source_format or guess_format(path), source)
    require_all_read(result)
    _write_as(target, out, result.records)
    return len(result.records)


def _write_as(target: str, path: Path, records: pd.DataFrame) -> None:
    if target == "records":
        write_records(path, records)
        return
    lines = [json.dumps(row, ensure_ascii=False) for row in vlm_r1_rows(records)]
    text = "\n".join(lines) if path.suffix == ".jsonl" else "[\n" + ",\n".join(lines) + "\n]"
    write_text(path, text)


def vlm_r1_rows(records: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of rec_jsons_processed, with record_id and split added so that no field is lost.

    area, iscrowd and category_id are left out: records do not contain them and VLM-R1 does not
    read them.
    """
    for record in records.to_dict("records"):
        own = (
            {"accu_reward_method": record["accuracy_reward"]}
            if record.get("accuracy_reward")
            else {}
        )
        if record.get("objects"):
            yield _detection_row(record) | own
            continue
        x1, y1, x2, y2 = box = [record[corner] for corner in BOX]
        coco = COCO_ID.search(record["image"])
        yield {
            **_identity(record),
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
            **own,
        }


def _identity(record: dict[str, Any]) -> dict[str, Any]:
    own_id = record["record_id"].removeprefix(f"{record['dataset']}:")
    return {
        "height": record["height"],
        "width": record["width"],
        "id": int(own_id) if own_id.isdecimal() else own_id,
        "original_id": _number(record["source_id"]),
        "dataset_name": record["dataset"],
    }


def _detection_row(record: dict[str, Any]) -> dict[str, Any]:
    """A row of VLM-R1's OVD files."""
    question = question_for(record["expression"], detects=True)
    answer = boxes_answer(read_objects(record["objects"]))
    return {
        **_identity(record),
        "image": record["image"],
        "conversations": [
            {"from": "human", "value": f"<image>{question}"},
            {"from": "gpt", "value": answer},
        ],
        "record_id": record["record_id"],
        "split": record["split"],
    }


def _number(text: str) -> int | str:
    """`text` as a number if that is written in the same digits."""
    return int(text) if text.isdecimal() and str(int(text)) == text else text
