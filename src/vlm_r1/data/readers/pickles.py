"""Untrusted pickles: only plain containers, numbers and strings are built; no code can run."""

import io
import pickle
import struct
from pathlib import Path
from typing import Any

from vlm_r1.data.readers.base import unusable
from vlm_r1.data.readers.json_rows import read_bytes
from vlm_r1.errors import one_line

PLAIN = "a pickle of lists, dicts, tuples, numbers and strings"
# What the opcodes of a broken pickle raise.
BROKEN = (
    *(pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError),
    *(ValueError, OverflowError, MemoryError, struct.error),
)


class _PlainUnpickler(pickle.Unpickler):
    """Plain values have opcodes of their own; a pickle that looks up a global is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which could run code")


def read_plain_pickle(path: Path, name: str) -> Any:
    """The value in a pickle of Python 2 or 3; Python 2's byte strings are decoded as latin-1.

    Raises:
        DataError: the file is missing or broken, or would build anything but plain values.
    """
    raw = read_bytes(path, name)
    try:
        return _PlainUnpickler(io.BytesIO(raw), encoding="latin1").load()
    except BROKEN as error:
        raise unusable(name, f"{type(error).__name__}: {one_line(error)}", PLAIN) from None
