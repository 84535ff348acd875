"""A gallery's image as a data URI, made smaller only if the page would pass its limit."""

import base64
from io import BytesIO

from PIL import Image

GALLERY_BYTES = 3_000_000  # of all images as files; a third more as text, so 4 MB of the page
SIDES_PX = (960, 640, 420, 280)  # longer side of a photograph, the first that fits
QUALITY = 82


def embed(png: bytes, images: int) -> str:
    """The image as a data URI that takes its share of the page's room for `images`.

    A PNG that is small enough stays as it is; a larger one becomes a WebP of the largest side that
    fits, or of the smallest if none does.
    """
    room = GALLERY_BYTES / images
    if len(png) <= room:
        return _data_uri("png", png)
    with Image.open(BytesIO(png)) as opened:
        image = opened.convert("RGB")
    for side in SIDES_PX:
        webp = _webp(image, side)
        if len(webp) <= room:
            break
    return _data_uri("webp", webp)


def _webp(image: Image.Image, side_px: int) -> bytes:
    shown = image.copy()
    shown.thumbnail((side_px, side_px))
    buffer = BytesIO()
    shown.save(buffer, format="WEBP", quality=QUALITY)
    return buffer.getvalue()


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
