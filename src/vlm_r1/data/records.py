"""Records: one row per expression, the only table that training and evaluation read.

Columns and types of the file (data/prepared/<dataset>/records.parquet):

    record_id, image (relative to the dataset's image folder), width, height (original px),
    expression, x1, y1, x2, y2 (xyxy, original px), split, dataset, source_id

and, only where a record has a value, those of `OPTIONAL` ("" is no value):

    accuracy_reward: the one reward of `grpo.rewards` that compares the answer with the truth
    objects: of a detection record, all true boxes with their labels (JSON, see rec/objects.py);
        `expression` then lists what to detect, and x1 to y2 is the smallest box around the objects,
        or the whole image if there are none
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_r1.errors import DataError, one_line
from vlm_r1.files import whole_file
from vlm_r1.rec.objects import LabeledBox, read_objects

BOX = ["x1", "y1", "x2", "y2"]
DTYPES = {
    "record_id": "str",
    "image": "str",
    "width": "int64",
    "height": "int64",
    "expression": "str",
    "x1": "float64",
    "y1": "float64",
    "x2": "float64",
    "y2": "float64",
    "split": "str",
    "dataset": "str",
    "source_id": "str",
}
COLUMNS = list(DTYPES)
OPTIONAL = ["accuracy_reward", "objects"]  # of strings
DIGEST_DIGITS = 32

_ARROW = {"str": pa.string(), "int64": pa.int64(), "float64": pa.float64()}


def columns_of(records: pd.DataFrame) -> list[str]:
    """`COLUMNS`, and those of `OPTIONAL` in which a record has a value."""
    return COLUMNS + [c for c in OPTIONAL if c in records and (records[c] != "").any()]


def optional_values(records: pd.DataFrame, column: str) -> list[str]:
    """The values (n,) of a column of `OPTIONAL`; "" where a record has none."""
    return records[column].tolist() if column in records else [""] * len(records)


def detects(records: pd.DataFrame) -> list[bool]:
    """(n,) whether each record is a detection record."""
    return [text != "" for text in optional_values(records, "objects")]


def true_objects(records: pd.DataFrame) -> list[list[LabeledBox]]:
    """What each record's answer should hold: its box labeled by the expression, or its objects."""
    boxes = records[BOX].to_numpy(dtype=float).tolist()
    columns = (optional_values(records, "objects"), boxes, records["expression"])
    return [
        read_objects(text) if text else [LabeledBox(tuple(box), expression)]
        for text, box, expression in zip(*columns, strict=True)
    ]


def join_records(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The records of all parts, one after the other, indexed from 0."""
    joined = pd.concat(parts, ignore_index=True)
    optional = [column for column in OPTIONAL if column in joined]
    return joined.fillna(dict.fromkeys(optional, "")).astype(dict.fromkeys(optional, "str"))


def read_records(path: Path) -> pd.DataFrame:
    """The records in a parquet file, in the file's order, indexed from 0.

    Raises:
        DataError: the file is missing, is not parquet, or lacks a column or its type.
    """
    try:
        records = pq.read_table(path).to_pandas()
    except FileNotFoundError:
        raise _unusable(f"{path}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise _unusable(f"{path}: not a parquet file ({one_line(error)})") from None
    for column, dtype in DTYPES.items():
        if column not in records:
            raise _unusable(f"{path}: no column {column!r}")
        if records[column].dtype != dtype:
            raise _unusable(f"{path}: column {column!r} of {records[column].dtype}, not {dtype}")
    return records[columns_of(records)]


def write_records(path: Path, records: pd.DataFrame) -> None:
    """Write the columns `columns_of`; equal records give equal bytes for one version of pyarrow."""
    columns = columns_of(records)
    schema = pa.schema([(name, _ARROW[DTYPES.get(name, "str")]) for name in columns])
    table = pa.Table.from_pandas(records[columns], schema=schema, preserve_index=False)
    with whole_file(path) as part:
        # pandas' own metadata would put its version into the file, and so into DVC's digest
        pq.write_table(table.replace_schema_metadata(None), part)


def records_digest(records: pd.DataFrame) -> str:
    """First 32 hex digits of the SHA-256 of the records, in order.

    Depends only on their content, not on the index, further columns or library versions.
    """
    names = columns_of(records)
    table = records[names].astype(DTYPES)
    columns = [table[name].tolist() for name in names]
    digest = hashlib.sha256(json.dumps(names).encode())
    for row in zip(*columns, strict=True):
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()[:DIGEST_DIGITS]


def _unusable(got: str) -> DataError:
    return DataError(
        got=got,
        need=f"a parquet file of records with the columns {', '.join(COLUMNS)}",
        because="training and evaluation read no other file",
        do="run `dvc repro prepare`",
    )
