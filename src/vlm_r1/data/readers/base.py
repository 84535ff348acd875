"""What a reader is given (`Source`), what it gives (`Reading`), and how rows become records.

A reader drops and repairs nothing: a row that it cannot read is kept, with its place and its fault.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from vlm_r1.data.images import read_image_size
from vlm_r1.data.records import BOX, COLUMNS, DTYPES
from vlm_r1.errors import DataError, describe_fault

PLACE = ["file", "row"]  # where a record stands: the source file's name, and its row from 1
UNREAD = [*PLACE, "id", "fault"]
SHOWN_CHARACTERS = 200
DECIMALS = 6


@dataclass(frozen=True)
class Source:
    """A file to read, and what its rows do not say themselves.

    Attributes:
        name: the file as messages call it.
        dataset: name of the dataset; None: as the rows say, else the file's stem.
        split: which of the file's splits to read (None: all), or what to call rows without one.
        role: what to call rows without a split if `split` does not say.
        images: folder of the images, for the sizes that the rows lack.
        seed: of a random sample.
        prefix: what record ids begin with; None: the dataset.
    """

    path: Path
    name: str
    dataset: str | None = None
    split: str | None = None
    role: str = ""
    images: Path | None = None
    seed: int = 0
    prefix: str | None = None


@dataclass(frozen=True)
class Reading:
    """What a file holds.

    Attributes:
        records: the columns of the records' contract, then file and row; in the file's order.
        unread: file, row, id (None if unknown) and fault of every row that is no record.
    """

    records: pd.DataFrame
    unread: pd.DataFrame

    @property
    def rows(self) -> int:
        """How many rows there are, read or not."""
        return len(self.records) + len(self.unread)


class Found(NamedTuple):
    """One expression as a row states it; box is xyxy in original pixels."""

    image: str
    expression: str
    box: list[float]
    width: int | None = None
    height: int | None = None
    id: int | str | None = None
    source_id: int | str | None = None
    split: str = ""
    dataset: str | None = None
    record_id: str | None = None


Parse = Callable[[Any], list[Found]]  # raises ValueError for a row that is no record


def collect(source: Source, rows: Iterable[tuple[int, Any]], parse: Parse) -> Reading:
    """Parse numbered rows into a reading; a row that is a ValueError could not even be decoded.

    Raises:
        DataError: there are no rows at all.
    """
    found: list[Found] = []
    numbers: list[int] = []
    unread: list[tuple] = []
    for number, row in rows:
        try:
            if isinstance(row, ValueError):
                raise row
            parsed = parse(row)
        except ValueError as error:
            unread.append((source.name, number, _id_of(row), describe_fault(error, whole="")))
        else:
            found += parsed
            numbers += [number] * len(parsed)
    if not found and not unread:
        raise unusable(source.name, "no rows", "at least one row")
    return _as_reading(source, found, numbers, pd.DataFrame(unread, columns=UNREAD, dtype=object))


def _as_reading(
    source: Source, found: list[Found], numbers: list[int], unread: pd.DataFrame
) -> Reading:
    frame = pd.DataFrame.from_records(found, columns=Found._fields)
    frame["file"], frame["row"] = source.name, np.array(numbers, dtype=np.int64)
    frame[BOX] = np.array([one.box for one in found], dtype=np.float64).reshape(-1, 4)
    stated = [source.dataset or one.dataset or source.path.stem for one in found]
    frame["record_id"] = [
        one.record_id or record_id(source.prefix or name, one.id, number)
        for one, name, number in zip(found, stated, numbers, strict=True)
    ]
    frame["dataset"] = stated
    ids = [one.id if one.source_id is None else one.source_id for one in found]
    frame["source_id"] = ["" if i is None else str(i) for i in ids]
    frame, sizeless = _with_sizes(frame, source.images)
    unread = pd.concat([unread, sizeless], ignore_index=True)
    return Reading(frame[COLUMNS + PLACE].astype(DTYPES).reset_index(drop=True), unread[UNREAD])


def record_id(prefix: str, row_id: int | str | None, number: int) -> str:
    """`<dataset>:<the row's own id>`, whole numbers with six digits; without one its place."""
    if row_id is None:
        return f"{prefix}:row-{number:06d}"
    text = str(row_id)
    return f"{prefix}:{text.zfill(6) if text.isdecimal() else text}"


def _with_sizes(frame: pd.DataFrame, images: Path | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sizes that rows lack, from the images' headers; rows for which there is none set apart."""
    sizes = frame[["height", "width"]].to_numpy(dtype=np.float64, copy=True)  # NaN: unknown
    lacking = np.flatnonzero(np.isnan(sizes).any(axis=1))
    known = {name: _header_size(images, name) for name in frame["image"].iloc[lacking].unique()}
    faults: dict[int, str] = {}
    for i in lacking:
        told = known[frame["image"].iat[i]]
        if isinstance(told, str):
            faults[i] = told
        else:
            sizes[i] = told
    frame["height"], frame["width"] = sizes.T
    apart = frame.iloc[list(faults)][[*PLACE, "record_id"]].rename(columns={"record_id": "id"})
    apart["fault"] = list(faults.values())
    return frame.drop(index=apart.index), apart.astype(object)


def _header_size(images: Path | None, name: str) -> tuple[int, int] | str:
    """(height, width) of an image, or why it is not known."""
    if images is None:
        return "no width and height, and no image folder to read them from"
    try:
        return read_image_size(images / name)
    except DataError as error:
        return f"no width and height, and none from the image: {error.got}"


def corners(x: float, y: float, width: float, height: float) -> list[float]:
    """Xywh -> xyxy, without the noise of binary sums: 299.99 + 177.42 is 477.41."""
    return [x, y, round(x + width, DECIMALS), round(y + height, DECIMALS)]


def image_path(image: str) -> str:
    """`image` if it stays inside the image folder.

    Raises:
        ValueError: it is empty, absolute, or climbs.
    """
    parts = image.replace("\\", "/").split("/")
    if not image or image[0] in "/\\" or ".." in parts or "\0" in image:
        raise ValueError(
            f"image: {image[:SHOWN_CHARACTERS]!r}: need a path relative to the dataset's image"
            " folder, and inside it"
        )
    return image


def require_all_read(reading: Reading) -> None:
    """A source is converted whole or not at all.

    Raises:
        DataError: names the first row that is no record.
    """
    if len(reading.unread):
        first, count = reading.unread.iloc[0], len(reading.unread)
        more = f" (and {count - 1} more rows)" if count > 1 else ""
        raise unusable(f"{first['file']}: row {first['row']}", f"{first['fault']}{more}")


def unusable(where: str, fault: str, need: str = "rows of the format that was named") -> DataError:
    """The one error of all readers."""
    return DataError(
        got=f"{where}: {fault}",
        need=need,
        because="a row that is dropped or guessed would change what is measured",
        do="correct the source file, or name its format (docs/data.md shows a row of each)",
    )


def _id_of(row: Any) -> str | None:
    found = row.get("id") if isinstance(row, dict) else None
    return str(found)[:SHOWN_CHARACTERS] if isinstance(found, int | str) else None
