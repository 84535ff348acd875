"""Tables: a user's CSV or Parquet, and this project's records.parquet."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from vlm_r1.data.readers.base import (
    InputFile,
    ParsedRow,
    ReadResult,
    collect,
    image_path,
    unusable,
    xyxy_from_xywh,
)
from vlm_r1.data.records import OPTIONAL, read_records
from vlm_r1.errors import one_line

CORNERS, SIDES = ("x1", "y1", "x2", "y2"), ("x", "y", "w", "h")
NEED = (
    "a table with the columns image, expression, and x1 y1 x2 y2 or x y w h; width and height of "
    "the image, id and split if you have them"
)


class _Row(BaseModel):
    """A row of a user's table; empty cells are left out."""

    model_config = ConfigDict(frozen=True)

    image: str
    expression: str
    x1: FiniteFloat | None = None
    y1: FiniteFloat | None = None
    x2: FiniteFloat | None = None
    y2: FiniteFloat | None = None
    x: FiniteFloat | None = None
    y: FiniteFloat | None = None
    w: FiniteFloat | None = None
    h: FiniteFloat | None = None
    width: Annotated[int | None, Field(ge=1)] = None
    height: Annotated[int | None, Field(ge=1)] = None
    id: int | str | None = None
    split: str = ""

    @model_validator(mode="after")
    def _has_one_box(self) -> "_Row":
        for names in (CORNERS, SIDES):
            given = [name for name in names if getattr(self, name) is not None]
            if given and len(given) < len(names):
                raise ValueError(f"only {' '.join(given)} of {' '.join(names)}")
        if (self.x1 is None) == (self.x is None):
            raise ValueError("need either x1 y1 x2 y2 or x y w h")
        return self

    @property
    def box(self) -> list[float]:
        """Xyxy."""
        if self.x1 is not None:
            return [getattr(self, name) for name in CORNERS]
        return xyxy_from_xywh(*(getattr(self, name) for name in SIDES))


def read_csv(source: InputFile) -> ReadResult:
    """A user's table in UTF-8 with a header line; rows are numbered from the line below it.

    Raises:
        DataError: the file is missing, not UTF-8, not a table, lacks a column, or has a row with
            another number of fields than the header.
    """
    try:
        uneven = _uneven_row(source.path)
        if uneven:
            raise unusable(source.name, uneven, "as many fields in every row as in the header")
        # All cells as text: a cell that is not a number is then reported with its row.
        table = pd.read_csv(source.path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        fault = "no such file"
    except UnicodeDecodeError as error:
        fault = f"not UTF-8: byte 0x{error.object[error.start]:02x}"
    except (csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        fault = one_line(error)
    else:
        return _read_table(source, list(table.columns), table.to_dict("records"))
    raise unusable(source.name, fault, NEED)


def _uneven_row(path: Path) -> str | None:
    """The first row whose number of fields is not the header's; None if all are even.

    pandas takes the first column as an index if every row ends with a comma, which shifts all
    values by one column, and fills rows that are too short.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = (row for row in csv.reader(file) if row)  # pandas skips blank lines too
        header = next(rows, [])
        for number, row in enumerate(rows, start=1):
            if len(row) != len(header):
                return f"row {number} with {len(row)} fields, header with {len(header)}"
    return None


def read_parquet(source: InputFile) -> ReadResult:
    """A user's table as Parquet.

    Raises:
        DataError: the file is missing, not Parquet, or lacks a column.
    """
    try:
        table = pq.read_table(source.path)
    except FileNotFoundError:
        fault = "no such file"
    except (pa.ArrowException, OSError) as error:
        fault = f"not a parquet file ({one_line(error)})"
    else:
        return _read_table(source, table.column_names, table.to_pylist())
    raise unusable(source.name, fault, NEED)


def read_our_records(source: InputFile) -> ReadResult:
    """This project's records.parquet, with the ids, splits and dataset that it states.

    Raises:
        DataError: the file is missing, not Parquet, or lacks a column or its type.
    """
    rows = read_records(source.path).to_dict("records")
    return collect(source, enumerate(rows, start=1), _parse_record)


def _read_table(source: InputFile, columns: list[str], rows: list[dict]) -> ReadResult:
    box = {name for name in (*CORNERS, *SIDES) if name in columns}
    lacking = {"image", "expression"} - set(columns)
    if lacking or box not in (set(CORNERS), set(SIDES)):
        raise unusable(source.name, f"columns {', '.join(map(str, columns))}", NEED)
    return collect(source, _numbered(rows), _parse_row)


def _numbered(rows: list[dict]) -> Iterator[tuple[int, dict]]:
    for number, row in enumerate(rows, start=1):
        yield number, {k: v for k, v in row.items() if v is not None and v != ""}


def _parse_row(row: dict[str, Any]) -> list[ParsedRow]:
    fields = _Row.model_validate(row)
    return [
        ParsedRow(
            image=image_path(fields.image),
            expression=fields.expression,
            box=fields.box,
            width=fields.width,
            height=fields.height,
            id=fields.id,
            split=fields.split,
        )
    ]


def _parse_record(row: dict[str, Any]) -> list[ParsedRow]:
    own = {key: row[key] for key in ("source_id", "dataset", "record_id")}
    own |= {key: row[key] for key in OPTIONAL if key in row}
    return [parsed._replace(**own) for parsed in _parse_row(row)]
