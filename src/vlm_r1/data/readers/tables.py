"""Tables: a user's CSV or Parquet, and our own records.parquet."""

from collections.abc import Iterator
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from vlm_r1.data.readers.base import (
    Found,
    Reading,
    Source,
    collect,
    corners,
    image_path,
    unusable,
)
from vlm_r1.data.records import COLUMNS, read_records

CORNERS, SIDES = ("x1", "y1", "x2", "y2"), ("x", "y", "w", "h")
NEED = (
    "a table with the columns image, expression, and x1 y1 x2 y2 or x y w h; width and height of "
    "the image, id and split if you have them"
)


class _Row(BaseModel):
    """A row of a user's table; an empty cell is a missing one."""

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
            return [self.x1, self.y1, self.x2, self.y2]
        return corners(self.x, self.y, self.w, self.h)


def read_csv(source: Source) -> Reading:
    """A user's table in UTF-8 with a line of column names; rows count below that line.

    Raises:
        DataError: the file is missing, not UTF-8, not a table, or lacks a column.
    """
    try:
        # Every cell as text, so that a number that is none is told by its row.
        frame = pd.read_csv(source.path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        fault = "no such file"
    except UnicodeDecodeError as error:
        fault = f"not UTF-8: byte 0x{error.object[error.start]:02x}"
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        fault = " ".join(str(error).split())
    else:
        return _read_table(source, list(frame.columns), frame.to_dict("records"))
    raise unusable(source.name, fault, NEED)


def read_parquet(source: Source) -> Reading:
    """A user's table as Parquet.

    Raises:
        DataError: the file is missing, not Parquet, or lacks a column.
    """
    try:
        table = pq.read_table(source.path)
    except FileNotFoundError:
        fault = "no such file"
    except (pa.ArrowException, OSError) as error:
        fault = f"not a parquet file ({' '.join(str(error).split())})"
    else:
        return _read_table(source, table.column_names, table.to_pylist())
    raise unusable(source.name, fault, NEED)


def read_our_records(source: Source) -> Reading:
    """A records.parquet of ours; ids, splits and dataset as they stand there.

    Raises:
        DataError: the file is missing, not Parquet, or not of the contract.
    """
    rows = read_records(source.path).to_dict("records")
    return collect(source, enumerate(rows, start=1), _parse_record)


def _read_table(source: Source, columns: list[str], rows: list[dict]) -> Reading:
    box = [name for name in (*CORNERS, *SIDES) if name in columns]
    lacking = [name for name in ("image", "expression") if name not in columns]
    if lacking or set(box) not in (set(CORNERS), set(SIDES)):
        raise unusable(source.name, f"columns {', '.join(map(str, columns))}", NEED)
    return collect(source, _numbered(rows), _parse_row)


def _numbered(rows: list[dict]) -> Iterator[tuple[int, dict]]:
    for number, row in enumerate(rows, start=1):
        yield number, {k: v for k, v in row.items() if v is not None and v != ""}


def _parse_row(row: dict[str, Any]) -> list[Found]:
    known = _Row.model_validate(row)
    return [
        Found(
            image=image_path(known.image),
            expression=known.expression,
            box=known.box,
            width=known.width,
            height=known.height,
            id=known.id,
            split=known.split,
        )
    ]


def _parse_record(row: dict[str, Any]) -> list[Found]:
    checked = _Row.model_validate({k: row[k] for k in COLUMNS if k in _Row.model_fields})
    return [
        Found(
            image=image_path(checked.image),
            expression=checked.expression,
            box=checked.box,
            width=checked.width,
            height=checked.height,
            source_id=row["source_id"],
            split=checked.split,
            dataset=row["dataset"],
            record_id=row["record_id"],
        )
    ]
