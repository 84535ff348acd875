"""Records: the parquet file and the digest."""

import hashlib

import pandas as pd
import pytest

from tests.dataset_files import records_table
from vlm_r1.data.records import (
    COLUMNS,
    read_records,
    records_digest,
    write_records,
)
from vlm_r1.errors import DataError


def two_records():
    row = {
        "record_id": "d:000001",
        "image": "images/a.png",
        "width": 427,
        "height": 640,
        "expression": "the café’s left cup",
        "x1": 103.93,
        "y1": 299.99,
        "x2": 238.15,
        "y2": 477.41,
        "split": "train",
        "dataset": "d",
        "source_id": "1719310",
    }
    return records_table([row, row | {"record_id": "d:000002", "x1": 0}])


def test_records_come_back_as_they_were_written(tmp_path):
    records = two_records()

    write_records(tmp_path / "new" / "records.parquet", records)

    pd.testing.assert_frame_equal(read_records(tmp_path / "new" / "records.parquet"), records)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["records.parquet"]


def test_same_records_give_the_same_bytes_whatever_their_index(tmp_path):
    write_records(tmp_path / "a.parquet", two_records())
    write_records(tmp_path / "b.parquet", two_records().set_index(pd.Index([8, 5])))

    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_digest_is_the_sha256_of_lines_computed_by_hand():
    lines = (
        '["record_id", "image", "width", "height", "expression", "x1", "y1", "x2", "y2", "split",'
        ' "dataset", "source_id"]'
        '["d:000001", "images/a.png", 427, 640, "the caf\\u00e9\\u2019s left cup", 103.93, 299.99,'
        ' 238.15, 477.41, "train", "d", "1719310"]\n'
    )

    assert records_digest(two_records().head(1)) == hashlib.sha256(lines.encode()).hexdigest()[:32]


def test_digest_ignores_index_and_further_columns_but_no_content(tmp_path):
    records = two_records()
    digest = records_digest(records)
    write_records(tmp_path / "r.parquet", records)

    assert records_digest(read_records(tmp_path / "r.parquet")) == digest
    assert records_digest(records.set_index(pd.Index([3, 1])).assign(more=1)) == digest
    assert records_digest(records[::-1]) != digest
    for column in COLUMNS:
        changed = records.copy()
        changed.loc[1, column] = changed.loc[1, column] * 2 + type(changed.loc[1, column])(1)
        assert records_digest(changed) != digest, column


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"records\.parquet: no such file\nneed(.|\n)*dvc repro"):
        read_records(tmp_path / "records.parquet")


def test_file_that_is_not_parquet_is_named(tmp_path):
    (tmp_path / "records.parquet").write_text("{}")

    with pytest.raises(DataError, match=r"records\.parquet: not a parquet file"):
        read_records(tmp_path / "records.parquet")


def test_missing_column_is_named(tmp_path):
    two_records().drop(columns="x2").to_parquet(tmp_path / "r.parquet")

    with pytest.raises(DataError, match=r"r\.parquet: no column 'x2'"):
        read_records(tmp_path / "r.parquet")


def test_column_of_another_type_is_named(tmp_path):
    two_records().assign(width=1.5).to_parquet(tmp_path / "r.parquet")

    with pytest.raises(DataError, match="column 'width' of float64, not int64"):
        read_records(tmp_path / "r.parquet")
