"""Files and folders that appear whole or not at all, their digests, and files of one model."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vlm_r1.errors import ResultError, describe_fault

if TYPE_CHECKING:
    from pydantic import BaseModel

Model = TypeVar("Model", bound="BaseModel")


def part_of(path: Path) -> Path:
    """The temporary name that a file or folder is written under."""
    return path.with_name(path.name + ".part")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which replaces `folder` when the block ends.

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
    """Rename the folder `part` to `folder`, replacing what is there."""
    if folder.exists():
        shutil.rmtree(folder)
    part.rename(folder)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which is renamed to `path` when the block ends.

    If the block raises, the temporary file is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        yield part
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all; a missing final newline is added."""
    with whole_file(path) as part:
        part.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all; non-ASCII characters stay readable."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False))


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_files(files: dict[str, Path]) -> str:
    """SHA-256 over several files, in the order of their names, each with its name; 64 hex digits.

    Args:
        files: name that counts -> file. Names relative to a project give equal digests on every
            machine.
    """
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{sha256_of_file(files[name])}\n".encode())
    return total.hexdigest()


def read_model(
    model: type[Model], file: Path, root: Path = Path(), *, need: str, because: str, do: str
) -> Model:
    """The JSON file `root / file` as a pydantic model; errors name it `file`.

    Raises:
        ResultError: the file is missing or broken; it says `need`, `because` and `do`.
    """
    try:
        return model.model_validate_json((root / file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        fault = "no such file"
    except ValueError as error:  # pydantic's, which most programs need not import
        fault = describe_fault(error)
    raise ResultError(got=f"{file}: {fault}", need=need, because=because, do=do)
