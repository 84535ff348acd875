"""Readers: a dataset's own file -> records. One function per format, all with one signature.

`read(format, source)` is the entry point; docs/data.md shows a row of each format.
"""

import gc
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vlm_r1.data.readers.base import InputFile, ReadResult, unusable
from vlm_r1.data.readers.llama_factory import read_llama_factory
from vlm_r1.data.readers.rec_yaml import read_rec_yaml
from vlm_r1.data.readers.refer import read_refer
from vlm_r1.data.readers.sampling import sample_rows
from vlm_r1.data.readers.tables import read_csv, read_our_records, read_parquet
from vlm_r1.data.readers.vlm_r1 import read_vlm_r1

READERS: dict[str, Callable[[InputFile], ReadResult]] = {
    "vlm-r1": read_vlm_r1,
    "rec-yaml": read_rec_yaml,
    "refer": read_refer,
    "refgta": read_refer,  # refs(utokyo).p has refer's layout
    "lisa": read_vlm_r1,  # lisa_test.json has VLM-R1's rows
    "llama-factory": read_llama_factory,
    "csv": read_csv,
    "parquet": read_parquet,
    "records": read_our_records,
}
BY_SUFFIX = {
    ".json": "vlm-r1",
    ".jsonl": "vlm-r1",
    ".yaml": "rec-yaml",
    ".yml": "rec-yaml",
    ".p": "refer",
    ".csv": "csv",
    ".parquet": "records",
}
SEVERAL_FILES = frozenset({"rec-yaml", "refer", "refgta"})  # formats that span several files
HEAD_BYTES = 65_536
# Quotes inside a JSON string are escaped, so this matches a key and never part of an expression.
MESSAGES_KEY = re.compile(rb'"messages"\s*:')


def read(name: str, source: InputFile) -> ReadResult:
    """Read a file of the format called `name`: the rows of `source.split` that are sampled.

    Raises:
        DataError: the file cannot be read, or has no such split, or fewer rows than are sampled.
    """
    with _no_garbage_collection():
        rows = _select_split(READERS[name](source), source)
        return sample_rows(rows, source.sampling, [source.seed], source.name)


def guess_format(path: Path) -> str:
    """The format by the file's suffix; SFT rows are recognized by their key `messages`.

    Raises:
        DataError: the suffix is unknown.
    """
    if path.suffix not in BY_SUFFIX:
        raise unusable(str(path), f"suffix {path.suffix!r}", f"one of {', '.join(BY_SUFFIX)}")
    if path.suffix in (".json", ".jsonl") and path.is_file():
        with path.open("rb") as file:
            if MESSAGES_KEY.search(file.read(HEAD_BYTES)):
                return "llama-factory"
    return BY_SUFFIX[path.suffix]


def _select_split(result: ReadResult, source: InputFile) -> ReadResult:
    """Name the rows without a split, then keep the rows of `source.split` if that is set."""
    records = result.records
    splits = records["split"].where(records["split"] != "", source.split or source.role)
    records = records.assign(split=splits)
    if source.split is not None and len(records):
        records = records[splits == source.split].reset_index(drop=True)
        if records.empty:
            raise unusable(
                source.name,
                f"no split {source.split!r}",
                f"one of its splits: {', '.join(sorted(splits.unique()))}",
            )
    return replace(result, records=records)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Rows hold no reference cycles, and searching millions of values for some takes a third of
    the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
