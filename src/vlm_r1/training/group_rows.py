"""Rows of a rollout whose groups hold their images once: the first row of a group carries them.

TRL 1.16 tells how many images a row has (`num_images`), and splits, shuffles and cuts pixels by it.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature
from trl.trainer.utils import (
    split_pixel_values_by_grid,
    split_tensor_dict,
    unsplit_pixel_values_by_grid,
)

Rows = dict[str, Any]  # as TRL holds a rollout or a micro-batch
PER_IMAGE = ("pixel_values", "image_grid_thw")
ROW = "row"  # number of a row in its rollout


def first_rows(prompts: Sequence[Any]) -> list[int]:
    """The rows whose prompt or image differs from that of the row before: the first of each group.

    Example: a a b a -> [0, 2, 3]
    """
    return [row for row, own in enumerate(prompts) if row == 0 or own != prompts[row - 1]]


def carriers(images: Sequence[Any]) -> list[int]:
    """The rows that carry their group's images."""
    return [row for row, own in enumerate(images) if own]


def sizes_of(first: list[int], rows: int) -> list[int]:
    """Rows of each group, by its first row."""
    return [end - start for start, end in zip(first, [*first[1:], rows], strict=True)]


def leading(own: Any, size: int) -> list[Any]:
    """`own` for the first of `size` rows, None for the others."""
    return [own, *[None] * (size - 1)]


def images_of(rows: Rows, first: int, end: int) -> Rows:
    """Pixels and grids of the groups from `first` to before `end`."""
    ends = [0, *accumulate(number for number in rows["num_images"] if number)]
    own, grids = slice(ends[first], ends[end]), rows["image_grid_thw"]
    patches = [0, *accumulate(grids.prod(-1).tolist())]
    pixels = rows["pixel_values"][patches[own.start] : patches[own.stop]]
    return {"pixel_values": pixels, "image_grid_thw": grids[own]}


class OncePerGroup:
    """A processor that looks at one row a group, the one that carries the images."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, images: Sequence[Any], text: Sequence[str], **options: Any) -> BatchFeature:
        """What the processor gives for all rows, images once a group."""
        first = carriers(images)
        inputs = self._processor(
            images=[images[row] for row in first], text=[text[row] for row in first], **options
        )
        sizes = torch.tensor(sizes_of(first, len(text)))
        for name, value in inputs.items():
            if name not in PER_IMAGE:
                inputs[name] = value.repeat_interleave(sizes.to(value.device), dim=0)
        return inputs


def in_rollout_order(batches: Sequence[Rows]) -> list[Rows]:
    """The micro-batches of a rollout with its rows in order; each part of a group has its image."""
    shuffled = _joined([split_pixel_values_by_grid(dict(batch)) for batch in batches])
    rows = _taken(shuffled, shuffled[ROW].argsort().tolist())
    size = len(batches[0][ROW])
    for start in range(0, size * len(batches), size):
        _give_image(rows, start)
    cuts: list[Rows] = split_tensor_dict(rows, len(batches))
    return [unsplit_pixel_values_by_grid(cut) for cut in cuts]


def _give_image(rows: Rows, row: int) -> None:
    """Give a row the image of its group, if an earlier row carries it."""
    carrier = max(other for other in range(row + 1) if rows["num_images"][other])
    for name in ("num_images", *PER_IMAGE):
        rows[name][row] = rows[name][carrier]


def _joined(batches: Sequence[Rows]) -> Rows:
    """Batches of rows as one."""
    return {name: _concatenated([batch[name] for batch in batches]) for name in batches[0]}


def _concatenated(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, list):
        return [one for value in values for one in value]
    return torch.cat(list(values)) if isinstance(first, Tensor) and first.ndim else first


def _taken(rows: Rows, numbers: list[int]) -> Rows:
    """The rows of these numbers; a number of the whole rollout stays as it is."""

    def take(value: Any) -> Any:
        if isinstance(value, list):
            return [value[number] for number in numbers]
        return value[numbers] if isinstance(value, Tensor) and value.ndim else value

    return {name: take(value) for name, value in rows.items()}
