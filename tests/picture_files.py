"""Picture files for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # EXIF tag


def save_turned(path: Path, picture: np.ndarray | Image.Image, orientation: int) -> None:
    """Write a picture whose stored pixels EXIF says to turn; 6 is a quarter clockwise."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    stored.save(path, exif=exif)
