"""Image files for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # EXIF tag


def save_turned(path: Path, image: np.ndarray | Image.Image, orientation: int) -> None:
    """Write an image whose stored pixels EXIF says to turn; 6 is a quarter clockwise."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    stored.save(path, exif=exif)
