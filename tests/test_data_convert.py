"""Conversion: VLM-R1's own example in both directions, and round trips without loss."""

import json

import pandas as pd
import pytest

from tests.dataset_files import (
    GOLDEN_BOX,
    GOLDEN_IMAGE,
    GOLDEN_PHRASE,
    GOLDEN_THOUSANDTHS,
    records_table,
    vlm_r1_row,
    write_refer,
)
from vlm_r1.data.convert import convert_file, vlm_r1_rows
from vlm_r1.data.readers import read
from vlm_r1.data.readers.base import InputFile
from vlm_r1.data.records import read_records
from vlm_r1.errors import DataError
from vlm_r1.rec.prompts import question_for


def test_golden_annotation_becomes_vlm_r1s_own_row(tmp_path):
    convert_file(write_refer(tmp_path), "refer", "vlm-r1", tmp_path / "out.json", split="train")

    first, _ = json.loads((tmp_path / "out.json").read_text())

    assert first["solution"] == GOLDEN_BOX
    assert first["normalized_solution"] == GOLDEN_THOUSANDTHS
    assert first["bbox_list"] == [[103.93, 299.99, 237.15, pytest.approx(476.41)]]
    assert (first["width"], first["height"], first["image_id"]) == (427, 640, 581857)
    assert (first["image"], first["original_id"]) == (GOLDEN_IMAGE, 1719310)
    assert (first["normal_caption"], first["problem"]) == (
        GOLDEN_PHRASE,
        question_for(GOLDEN_PHRASE),
    )


ODD = {  # hard to round-trip: ids that look like numbers, floats without a short decimal form
    "record_id": "mine",
    "image": "ünï/a b.png",
    "width": 61,
    "height": 7,
    "expression": 'the "café’s"\tleft cup. ',
    "x1": 0.1 + 0.2,
    "y1": 1e-9,
    "x2": 1 / 3 + 5,
    "y2": 6.999999999999999,
    "split": "testB",
    "dataset": "d",
    "source_id": "007",
}
PLAIN = ODD | {"record_id": "d:000012", "source_id": "", "split": "", "expression": "cup"}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_records_to_vlm_r1_and_back_are_the_same_records(tmp_path, name):
    records = records_table([ODD, PLAIN])
    text = "\n".join(map(json.dumps, vlm_r1_rows(records)))
    (tmp_path / name).write_text(text if name.endswith("l") else f"[{text.replace(chr(10), ',')}]")

    again = read("vlm-r1", InputFile(tmp_path / name, name)).records

    pd.testing.assert_frame_equal(again[list(records)], records)


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_every_target_read_again_gives_the_same_bytes(tmp_path, suffix):
    source = write_refer(tmp_path)
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"

    convert_file(source, None, "records", first)
    convert_file(first, None, "vlm-r1", tmp_path / f"rows.{suffix}")
    convert_file(tmp_path / f"rows.{suffix}", None, "records", second)

    assert first.read_bytes() == second.read_bytes()
    assert len(read_records(first)) == 3


def test_rows_of_vlm_r1_keep_their_ids_and_names(tmp_path):
    rows = [vlm_r1_row(5, dataset_name="refcoco", original_id=77)]
    (tmp_path / "a.json").write_text(json.dumps(rows))

    convert_file(tmp_path / "a.json", "vlm-r1", "vlm-r1", tmp_path / "b.json")

    (row,) = json.loads((tmp_path / "b.json").read_text())
    assert {key: row[key] for key in rows[0]} == rows[0]


def test_one_bad_row_keeps_all_from_being_written(tmp_path):
    rows = [vlm_r1_row(1), vlm_r1_row(2, width="60"), vlm_r1_row(3, solution=None)]
    (tmp_path / "a.json").write_text(json.dumps(rows))

    with pytest.raises(
        DataError, match=r"a\.json: row 2: width: Input should .*\(and 1 more rows\)"
    ):
        convert_file(tmp_path / "a.json", None, "records", tmp_path / "r.parquet")

    assert not (tmp_path / "r.parquet").exists()
