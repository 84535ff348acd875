"""Boxes: IoU, conversion between coordinate spaces, Qwen2.5-VL's resize. Numpy only.

A box is xyxy floats in one of four coordinate spaces: `original` pixels of the image file, `input`
pixels after `smart_resize`, `thousand` (each side 0-1000), `unit` (each side 0-1).
"""

import math

import numpy as np
from numpy.typing import ArrayLike

COORDINATE_SPACES = ("original", "input", "thousand", "unit")
PATCH_MERGE_PX = 28  # Qwen2.5-VL: 14 px patches, merged 2 x 2
Xyxy = tuple[float, float, float, float]
IOU_THRESHOLD = 0.5  # a hit is strictly above it, as in VLM-R1


def iou(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Intersection over union, row by row.

    Args:
        a, b: boxes (..., 4), xyxy in one common coordinate space; rows with NaN give 0.

    Returns:
        IoU (...) in 0-1; 0 where either box has no positive area.
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


def area(box: ArrayLike) -> np.ndarray:
    """Area (...) of boxes (..., 4); 0 where corners are reversed, NaN where a corner is NaN."""
    box = np.asarray(box, dtype=np.float64)
    width, height = box[..., 2] - box[..., 0], box[..., 3] - box[..., 1]
    areas: np.ndarray = np.clip(width, 0, None) * np.clip(height, 0, None)
    return areas


def is_hit(overlap: ArrayLike) -> np.ndarray:
    """Bool (...): True where an IoU counts as a correct answer."""
    return np.asarray(overlap) > IOU_THRESHOLD


def smart_resize(
    height: int, width: int, min_pixels: int, max_pixels: int, factor: int = PATCH_MERGE_PX
) -> tuple[int, int]:
    """(height, width) in input pixels that Qwen2.5-VL's processor resizes an image to.

    Each side is rounded to a multiple of `factor`; if the area is then outside the pixel budget,
    both sides are scaled to fit it (as transformers' Qwen2VLImageProcessor does).
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
    box: ArrayLike, coordinate_space: str, image_size: ArrayLike, input_size: ArrayLike
) -> np.ndarray:
    """Boxes (..., 4) from `coordinate_space` to original pixels.

    Args:
        image_size, input_size: (..., 2) as (height, width) before and after the resize.
    """
    scale = _scale(coordinate_space, image_size, input_size)
    original: np.ndarray = np.asarray(box, dtype=np.float64) * scale
    return original


def from_original(
    box: ArrayLike, coordinate_space: str, image_size: ArrayLike, input_size: ArrayLike
) -> np.ndarray:
    """Boxes (..., 4) from original pixels to `coordinate_space`; the inverse of `to_original`."""
    scale = _scale(coordinate_space, image_size, input_size)
    converted: np.ndarray = np.asarray(box, dtype=np.float64) / scale
    return converted


def _scale(coordinate_space: str, image_size: ArrayLike, input_size: ArrayLike) -> np.ndarray:
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
