"""Boxes: IoU, coordinate spaces, and the resize that changes coordinate spaces. Numpy only.

A box is xyxy floats. Coordinate spaces: `original` pixels of the image file, `input` pixels after
`smart_resize`, `thousand` (0-1000 of each side), `unit` (0-1 of each side).
"""

import math

import numpy as np

COORDINATE_SPACES = ("original", "input", "thousand", "unit")
PATCH_MERGE_PX = 28  # Qwen2.5-VL: 14 px patches, merged 2 x 2
IOU_THRESHOLD = 0.5  # a hit is strictly above it, as in VLM-R1


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union, row by row.

    Args:
        a, b: boxes (..., 4), xyxy in one common coordinate space; rows with NaN give 0.

    Returns:
        IoU (...), 0 where either box has no positive area.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    inter = np.clip(width, 0, None) * np.clip(height, 0, None)
    union = area(a) + area(b) - inter
    valid = (area(a) > 0) & (area(b) > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = inter / union
    return np.where(valid, ratio, 0.0)


def area(box: np.ndarray) -> np.ndarray:
    """Area (...) of boxes (..., 4); 0 where corners are reversed, NaN where a corner is NaN."""
    box = np.asarray(box, dtype=np.float64)
    return np.clip(box[..., 2] - box[..., 0], 0, None) * np.clip(box[..., 3] - box[..., 1], 0, None)


def is_hit(overlap: np.ndarray) -> np.ndarray:
    """True where IoU counts as a correct answer."""
    return np.asarray(overlap) > IOU_THRESHOLD


def smart_resize(
    height: int, width: int, min_pixels: int, max_pixels: int, factor: int = PATCH_MERGE_PX
) -> tuple[int, int]:
    """(height, width) in input pixels that Qwen2.5-VL's processor resizes an image to.

    Each side becomes a multiple of `factor`; if the area leaves the pixel budget, both sides are
    scaled and rounded back into it (rule of transformers' Qwen2VLImageProcessor).
    """
    new_height = max(factor, round(height / factor) * factor)
    new_width = max(factor, round(width / factor) * factor)
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


def to_original(
    box: np.ndarray, coordinate_space: str, image_size: np.ndarray, input_size: np.ndarray
) -> np.ndarray:
    """Boxes (..., 4) given in `coordinate_space`, in original pixels.

    Args:
        image_size, input_size: (..., 2) as (height, width) before and after the resize.
    """
    return np.asarray(box, dtype=np.float64) * _scale(coordinate_space, image_size, input_size)


def from_original(
    box: np.ndarray, coordinate_space: str, image_size: np.ndarray, input_size: np.ndarray
) -> np.ndarray:
    """Boxes (..., 4) given in original pixels, in `coordinate_space`; the inverse of `to_original`."""
    return np.asarray(box, dtype=np.float64) / _scale(coordinate_space, image_size, input_size)


def _scale(coordinate_space: str, image_size: np.ndarray, input_size: np.ndarray) -> np.ndarray:
    """Original pixels per unit of `coordinate_space`, (..., 4) for x, y, x, y."""
    image_size = np.asarray(image_size, dtype=np.float64)
    if coordinate_space == "original":
        per_side = np.ones_like(image_size)
    elif coordinate_space == "input":
        per_side = image_size / np.asarray(input_size, dtype=np.float64)
    elif coordinate_space == "thousand":
        per_side = image_size / 1000
    elif coordinate_space == "unit":
        per_side = image_size
    else:
        raise ValueError(
            f"got coordinate space {coordinate_space!r}, need one of {COORDINATE_SPACES}"
        )
    height, width = per_side[..., 0], per_side[..., 1]
    return np.stack([width, height, width, height], axis=-1)
