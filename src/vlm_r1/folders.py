"""Folders and text files that are written whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def part_of(folder: Path) -> Path:
    """Where `whole_folder` writes until all is there."""
    return folder.with_name(folder.name + ".part")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes `folder`'s place once the block has ended well.

    If the block raises, what it wrote is removed and `folder` stays as it was.
    """
    part = part_of(folder)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part)
        raise
    put_in_place(part, folder)


def put_in_place(part: Path, folder: Path) -> None:
    """Give `part` the name `folder`, whose earlier content goes."""
    if folder.exists():
        shutil.rmtree(folder)
    part.rename(folder)


def write_whole(path: Path, text: str) -> None:
    """Write a text file with a last line end, in UTF-8, under another name until all is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)
