"""Loading images: validation, training, evaluation and reports all use `open_image`.

docs/data.md, "Images", lists how each kind of file is treated. Boxes in original pixels refer to
the image that `open_image` returns, which is upright (see `data.orientation`).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from vlm_r1.errors import DataError, one_line
from vlm_r1.files import sha256_of_file

BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
MAX_PIXELS = 178_956_970  # twice Pillow's MAX_IMAGE_PIXELS: above it Pillow refuses too
MAX_ASPECT_RATIO = 200  # Qwen2-VL's processor raises above it (transformers, smart_resize)
ORIENTATION = 0x0112  # EXIF tag
Color = str | tuple[int, int, int]  # a name, or RGB
QUARTER_TURNS = (5, 6, 7, 8)  # orientations that swap width and height


def open_image(path: Path) -> Image.Image:
    """The image as RGB, fully decoded and turned upright by its EXIF orientation.

    The format is recognized by the content, not the suffix; of several frames the first is used.
    Gray, palette and CMYK images are converted; of 16 bits per channel the upper eight are kept;
    transparent images are composited on white, as qwen_vl_utils does.

    Raises:
        DataError: the file is missing, empty, truncated, no image, has 32 bits per channel (whose
            range no file states), more than `MAX_PIXELS`, or sides above `MAX_ASPECT_RATIO` to 1.
    """
    with _as_data_errors(path), Image.open(path) as file:
        _require_bounds(path, *file.size)
        file.load()
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode in ("I", "F"):
            raise _unusable(f"{path}: 32 bits a channel (mode {image.mode})")
        return _on_white(image) if image.has_transparency_data else image.convert("RGB")


def read_image_size(path: Path) -> tuple[int, int]:
    """(height, width) of what `open_image` returns; reads the file's header only.

    Raises:
        DataError: the file is missing, empty or no image.
    """
    width, height, orientation = read_header(path)
    return (width, height) if orientation in QUARTER_TURNS else (height, width)


def read_header(path: Path) -> tuple[int, int, int]:
    """Width and height of the stored pixels, and the EXIF orientation (1 to 8; 1 is upright).

    Raises:
        DataError: the file is missing, empty or no image.
    """
    with _as_data_errors(path), Image.open(path) as file:
        orientation = file.getexif().get(ORIENTATION, 1)
        return file.width, file.height, orientation if orientation in range(1, 9) else 1


def image_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, hexadecimal.

    Raises:
        DataError: the file is missing.
    """
    with _as_data_errors(path):
        return sha256_of_file(path)


@contextmanager
def _as_data_errors(path: Path) -> Iterator[None]:
    """Turn every error of reading an image into a `DataError` that names the file."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise _unusable(f"{path}: no such file") from None
    except IsADirectoryError:
        raise _unusable(f"{path}: a folder") from None
    except BROKEN as error:
        empty = path.is_file() and path.stat().st_size == 0
        raise _unusable(f"{path}: {'empty' if empty else one_line(error)}") from None


def _require_bounds(path: Path, width: int, height: int) -> None:
    """Refuse, before decoding, what would fill the memory or what the processor rejects."""
    if width * height > MAX_PIXELS:
        raise _unusable(f"{path}: {width} x {height} px, above {MAX_PIXELS} pixels")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise _unusable(f"{path}: {width} x {height} px, longer than {MAX_ASPECT_RATIO} to 1")


def _on_white(image: Image.Image) -> Image.Image:
    opaque = image.convert("RGBA")
    background = Image.new("RGBA", opaque.size, "white")
    return Image.alpha_composite(background, opaque).convert("RGB")


def _unusable(got: str) -> DataError:
    return DataError(
        got=got,
        need="a whole image with 8 or 16 bits a channel that Pillow opens",
        because="without the image, the model would be scored as wrong",
        do="restore the file, or correct the dataset's `images` folder in params.yaml",
    )


def draw_boxes(
    image: Image.Image, boxes: Iterable[tuple[Sequence[float] | None, Color]], width_px: int
) -> None:
    """Draw boxes onto `image`, in order; None is skipped.

    Args:
        boxes: (box, color), xyxy in pixels of `image`. A model may answer reversed or far-off
            corners, which Pillow refuses: they are sorted and clipped to the image.
    """
    canvas = ImageDraw.Draw(image)
    for box, color in boxes:
        if box is None:
            continue
        corners = np.clip(np.reshape(box, (2, 2)), 0, image.size)
        canvas.rectangle(
            (*corners.min(axis=0), *corners.max(axis=0)), outline=color, width=width_px
        )
