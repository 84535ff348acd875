"""The one way in which a picture is loaded, for validation, training, evaluation and reports."""

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
    try:
        with Image.open(path) as file:
            file.load()
            picture = ImageOps.exif_transpose(file)
    except FileNotFoundError:
        raise _unusable(f"{path}: no such file") from None
    except BROKEN as error:
        raise _unusable(f"{path}: {' '.join(str(error).split())}") from None
    if picture.mode == "F" or picture.mode.startswith("I"):
        raise _unusable(f"{path}: more than 8 bits a channel (mode {picture.mode})")
    return _on_white(picture) if picture.has_transparency_data else picture.convert("RGB")


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
