"""Gallery images as data URIs, scaled down only where the page would exceed its size limit."""

import base64
from io import BytesIO

from PIL import Image

GALLERY_BYTES = 3_000_000  # of all images together; base64 makes 4 MB of them
SIDES_PX = (960, 640, 420, 280)  # of the longer side, tried in this order
QUALITY = 82


def embed(png: bytes, images: int) -> str:
    """The image as a data URI of at most 1 / `images` of the size limit.

    A PNG within its share is kept; a larger one becomes a WebP with the largest side that fits, or
    with the smallest side if none does.
    """
    share = GALLERY_BYTES / images
    if len(png) <= share:
        return _data_uri("png", png)
    with Image.open(BytesIO(png)) as opened:
        image = opened.convert("RGB")
    for side in SIDES_PX:
        webp = _webp(image, side)
        if len(webp) <= share:
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
