"""What a reader takes (`InputFile`) and returns (`ReadResult`), and how rows become records.

Readers neither drop nor repair rows: a row that cannot be read is returned with its place and
fault.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from vlm_r1.data.images import read_image_size
from vlm_r1.data.records import BOX, DTYPES, OPTIONAL, columns_of, join_records
from vlm_r1.errors import DataError, describe_fault

PLACE = ["file", "row"]  # where a record comes from: the file's name, and its row counted from 1
UNREAD = [*PLACE, "id", "fault"]
SHOWN_CHARACTERS = 200
DECIMALS = 6


@dataclass(frozen=True)
class InputFile:
    """A file to read, and what its rows do not state.

    Attributes:
        name: the file's name in messages.
        dataset: name of the dataset; None: as the rows state, else the file's stem.
        split: which of the file's splits to read (None: all); also names rows without a split.
        role: names rows without a split if `split` is None.
        images: folder of the images, to read missing sizes from.
        seed: of random samples.
        prefix: what record ids begin with; None: the dataset.
        sampling: which rows of the split, a strategy of `readers.sampling`.
        accuracy_reward: of rows that state none; "": none.
    """

    path: Path
    name: str
    dataset: str | None = None
    split: str | None = None
    role: str = ""
    images: Path | None = None
    seed: int = 0
    prefix: str | None = None
    sampling: str = "all"
    accuracy_reward: str = ""


@dataclass(frozen=True)
class ReadResult:
    """Content of a file.

    Attributes:
        records: the columns `records.columns_of`, then file and row; in the file's order.
        unread: file, row, id (None if unknown) and fault of every row that is not a record.
    """

    records: pd.DataFrame
    unread: pd.DataFrame

    @property
    def row_count(self) -> int:
        """Number of rows, whether they could be read or not."""
        return len(self.records) + len(self.unread)


class ParsedRow(NamedTuple):
    """One expression as a row states it; `box` is xyxy in pixels of the original image.

    Of a detection row, `objects` is what records hold, and `box` NaN if there are none.
    """

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
    accuracy_reward: str = ""
    objects: str = ""


Parse = Callable[[Any], list[ParsedRow]]  # raises ValueError if the row is not a record


def collect(source: InputFile, rows: Iterable[tuple[int, Any]], parse: Parse) -> ReadResult:
    """Parse numbered rows; a row that is a ValueError is one that could not even be decoded.

    Raises:
        DataError: there are no rows at all.
    """
    parsed: list[ParsedRow] = []
    numbers: list[int] = []
    unread: list[tuple] = []
    for number, row in rows:
        try:
            if isinstance(row, ValueError):
                raise row
            expressions = parse(row)
        except ValueError as error:
            unread.append((source.name, number, _id_of(row), describe_fault(error, whole="")))
        else:
            parsed += expressions
            numbers += [number] * len(expressions)
    if not parsed and not unread:
        raise unusable(source.name, "no rows", "at least one row")
    table, sizeless = _with_sizes(_table(source, parsed, numbers), source.images)
    faults = pd.DataFrame(unread, columns=UNREAD, dtype=object)
    return ReadResult(
        records=table[columns_of(table) + PLACE].astype(DTYPES).reset_index(drop=True),
        unread=pd.concat([faults, sizeless], ignore_index=True)[UNREAD],
    )


def join_results(results: Sequence[ReadResult]) -> ReadResult:
    """The rows of several files, one file after the other."""
    return ReadResult(
        join_records([result.records for result in results]),
        pd.concat([result.unread for result in results], ignore_index=True),
    )


def _table(source: InputFile, parsed: list[ParsedRow], numbers: list[int]) -> pd.DataFrame:
    """Parsed rows with the columns of `data.records`, file and row; width and height may be NaN."""
    table = pd.DataFrame.from_records(parsed, columns=ParsedRow._fields)
    table["file"], table["row"] = source.name, np.array(numbers, dtype=np.int64)
    table[BOX] = np.array([row.box for row in parsed], dtype=np.float64).reshape(-1, 4)
    datasets = [source.dataset or row.dataset or source.path.stem for row in parsed]
    table["record_id"] = [
        row.record_id or _record_id(source.prefix or dataset, row.id, number)
        for row, dataset, number in zip(parsed, datasets, numbers, strict=True)
    ]
    table["dataset"] = datasets
    table["accuracy_reward"] = [row.accuracy_reward or source.accuracy_reward for row in parsed]
    table[OPTIONAL] = table[OPTIONAL].astype("str")
    ids = [row.id if row.source_id is None else row.source_id for row in parsed]
    table["source_id"] = ["" if i is None else str(i) for i in ids]
    return table


def _record_id(prefix: str, row_id: int | str | None, number: int) -> str:
    """`<dataset>:<the row's id>`, numbers padded to six digits; without an id, the row's number."""
    if row_id is None:
        return f"{prefix}:row-{number:06d}"
    text = str(row_id)
    return f"{prefix}:{text.zfill(6) if text.isdecimal() else text}"


def _with_sizes(table: pd.DataFrame, images: Path | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows with missing sizes read from the images' headers, and the rows without any size."""
    sizes = table[["height", "width"]].to_numpy(dtype=np.float64, copy=True)  # NaN: unknown
    names = table["image"].to_numpy()
    lacking = np.flatnonzero(np.isnan(sizes).any(axis=1)).tolist()
    known = {name: _header_size(images, name) for name in dict.fromkeys(names[lacking])}
    faults: dict[int, str] = {}
    for i in lacking:
        size = known[names[i]]
        if isinstance(size, str):
            faults[i] = size
        else:
            sizes[i] = size
    table["height"], table["width"] = sizes.T
    empty = np.isnan(table[BOX].to_numpy()).all(axis=1)  # detection rows without objects
    table.loc[empty, BOX] = np.stack([0 * sizes[empty], sizes[empty, ::-1]], 1).reshape(-1, 4)
    sizeless = table.iloc[list(faults)][[*PLACE, "record_id"]].rename(columns={"record_id": "id"})
    sizeless["fault"] = list(faults.values())
    return table.drop(index=sizeless.index), sizeless.astype(object)


def _header_size(images: Path | None, name: str) -> tuple[int, int] | str:
    """(height, width) of an image, or why it is unknown."""
    if images is None:
        return "no width and height, and no image folder to read them from"
    try:
        return read_image_size(images / name)
    except DataError as error:
        return f"no width and height, and none from the image: {error.got}"


def xyxy_from_xywh(x: float, y: float, width: float, height: float) -> list[float]:
    """A box's corners, rounded so that 299.99 + 177.42 is 477.41 and not 477.40999999999997."""
    return [x, y, round(x + width, DECIMALS), round(y + height, DECIMALS)]


def image_path(image: str) -> str:
    """`image` if it stays inside the image folder.

    Raises:
        ValueError: it is empty, absolute, or leads out of the folder.
    """
    parts = image.replace("\\", "/").split("/")
    if not image or image[0] in "/\\" or ".." in parts or "\0" in image:
        raise ValueError(
            f"image: {image[:SHOWN_CHARACTERS]!r}: need a path relative to the dataset's image"
            " folder, and inside it"
        )
    return image


def single_image(images: list[str], key: str) -> str:
    """The only image that a row lists under `key`.

    Raises:
        ValueError: the row lists none or several.
    """
    if len(images) != 1:
        raise ValueError(f"{key}: {len(images)} images {images}; only rows of one can be read")
    return images[0]


def require_all_read(result: ReadResult) -> None:
    """Refuse a file with a row that is not a record.

    Raises:
        DataError: names the first such row.
    """
    if len(result.unread):
        first, count = result.unread.iloc[0], len(result.unread)
        more = f" (and {count - 1} more rows)" if count > 1 else ""
        raise unusable(f"{first['file']}: row {first['row']}", f"{first['fault']}{more}")


def unusable(where: str, fault: str, need: str = "rows of the format that was named") -> DataError:
    """The error that every reader raises for a file it cannot read."""
    return DataError(
        got=f"{where}: {fault}",
        need=need,
        because="a row that is dropped or guessed would change what is measured",
        do="correct the source file, or name its format (docs/data.md shows a row of each)",
    )


def _id_of(row: Any) -> str | None:
    row_id = row.get("id") if isinstance(row, dict) else None
    return str(row_id)[:SHOWN_CHARACTERS] if isinstance(row_id, int | str) else None
