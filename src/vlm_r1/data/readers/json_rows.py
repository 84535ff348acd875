"""JSON files as numbered rows: an array, or one object per line. Errors name the row."""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from vlm_r1.data.readers.base import unusable

ARRAY = "a JSON array of rows (.json) or one JSON object a line (.jsonl), in UTF-8"
KINDS = {"dict": "object", "str": "string"}  # Python's name -> JSON's


def read_rows(path: Path, name: str) -> Iterator[tuple[int, Any]]:
    """(number from 1, row) of a .json array or .jsonl lines; an undecodable line as its ValueError.

    Lines are numbered by their place in the file; blank lines are skipped.

    Raises:
        DataError: the file is missing, cut short, not UTF-8 JSON, or not an array.
    """
    raw = read_bytes(path, name)
    if path.suffix == ".jsonl":
        return _lines(raw)
    rows = parse_json(raw, name)
    if not isinstance(rows, list):
        kind = type(rows).__name__
        raise unusable(name, f"a JSON {KINDS.get(kind, kind)} at the top", ARRAY)
    return enumerate(rows, start=1)


def read_bytes(path: Path, name: str) -> bytes:
    """The file without a byte order mark.

    Raises:
        DataError: there is no such file.
    """
    try:
        return path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        fault = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise unusable(name, fault or str(error), "a file") from None


def parse_json(raw: bytes, name: str, need: str = ARRAY) -> Any:
    """The JSON value in `raw`.

    Raises:
        DataError: it is broken; names the place, and within an array the row.
    """
    try:
        return from_json(raw)
    except ValueError as error:
        offset, fault = _locate_fault(raw, error)
        raise unusable(f"{name}{_row_at(raw, offset)}", fault, need) from None


def _lines(raw: bytes) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if line.strip():
            try:
                row = from_json(line)
            except ValueError as error:
                row = ValueError(_locate_fault(line, error)[1])
            yield number, row


def _locate_fault(raw: bytes, error: ValueError) -> tuple[int, str]:
    """Offset in bytes at which the JSON is broken, and how; `error` states line and column."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return wrong.start, f"not UTF-8: byte 0x{raw[wrong.start]:02x} at {wrong.start}"
    message = str(error)
    line, column = message.rpartition(" at line ")[2].split(" column ")
    before = sum(len(part) + 1 for part in raw.split(b"\n", int(line) - 1)[: int(line) - 1])
    return before + int(column) - 1, f"broken JSON: {message}"


def _row_at(raw: bytes, offset: int) -> str:
    """`: row N` if the JSON is an array that is broken within its row N."""
    try:
        start = from_json(raw[:offset], allow_partial=True)
    except ValueError:
        return ""
    return f": row {max(len(start), 1)}" if isinstance(start, list) else ""
