"""The one way in which a picture is loaded, for validation, training, evaluation and reports."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps

from vlm_r1.errors import DataError

BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def open_picture(path: Path) -> Image.Image:
    """The picture as RGB, fully decoded, turned as its EXIF orientation says.

    Grey, palette and CMYK pictures are converted; transparent ones are laid on white, as
    qwen_vl_utils does.

    Raises:
        DataError: the file is missing, cut short, no picture, or has more than 8 bits a channel
            (Pillow would clip those to white).
    """
    with _refusal(path), Image.open(path) as file:
        file.load()
        picture = ImageOps.exif_transpose(file)
    if picture.mode == "F" or picture.mode.startswith("I"):
        raise _unusable(f"{path}: more than 8 bits a channel (mode {picture.mode})")
    return _on_white(picture) if picture.has_transparency_data else picture.convert("RGB")


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) as the file's header says, before any EXIF turn; decodes nothing.

    Raises:
        DataError: the file is missing or no picture.
    """
    with _refusal(path), Image.open(path) as file:
        return file.height, file.width


def picture_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, hexadecimal.

    Raises:
        DataError: the file is missing.
    """
    with _refusal(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _refusal(path: Path) -> Iterator[None]:
    """Whatever keeps a picture from being read becomes a `DataError` that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise _unusable(f"{path}: no such file") from None
    except BROKEN as error:
        raise _unusable(f"{path}: {' '.join(str(error).split())}") from None


def _on_white(picture: Image.Image) -> Image.Image:
    opaque = picture.convert("RGBA")
    ground = Image.new("RGBA", opaque.size, "white")
    return Image.alpha_composite(ground, opaque).convert("RGB")


def _unusable(got: str) -> DataError:
    return DataError(
        got=got,
        need="a whole picture with 8 bits a channel that Pillow opens",
        because="a model that is shown nothing would be scored as if it had been wrong",
        do="restore the file, or correct the dataset's `images` folder in params.yaml",
    )
