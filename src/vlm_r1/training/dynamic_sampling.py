"""Dynamic sampling (DAPO, Yu et al. 2025, section 3.2): groups of equal rewards are replaced.

All advantages of such a group are 0, so it teaches nothing. Further prompts are asked, beyond those
of the training, and their groups take its place in the rollout.
"""

from typing import Any

import datasets
import torch
from torch import Tensor
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from vlm_r1.training.group_rows import ROW
from vlm_r1.training.rollout_images import Row

EQUAL = 1e-6  # rewards closer than this are equal
Rollout = dict[str, Any]
# tensors of a rollout (rows, tokens) by where TRL pads them; token types are padded on both sides
PROMPTS = ("prompt_ids", "prompt_mask")
BOTH = ("token_type_ids", "mm_token_type_ids")


class FurtherPrompts:
    """The prompts after those of a training, in order, each asked once.

    Attributes:
        read: how many have been asked, by all processes together.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self._rows = rows
        self.read = 0

    def take(self, prompts: int, process: int, processes: int) -> list[Row]:
        """The next `prompts` rows of this process; none if there are not enough for all processes.

        Every process takes as many, one after the other in the order of the rows.
        """
        end = self.read + prompts * processes
        if end > len(self._rows):
            return []
        start = self.read + prompts * process
        self.read = end
        return [self._rows[number] for number in range(start, start + prompts)]


def equal_groups(rewards: Tensor, weights: Tensor, size: int) -> Tensor:
    """Which groups have equal rewards, (groups,) bool.

    Args:
        rewards: (completions, rewards), NaN where one does not judge.
        weights: (rewards,)
        size: completions of a group.
    """
    groups = (rewards * weights).nansum(dim=1).view(-1, size)
    return groups.amax(1) - groups.amin(1) < EQUAL


def refill(rollout: Rollout, further: Rollout, places: Tensor, sources: Tensor) -> Rollout:
    """`rollout` with the rows `sources` of `further` in the rows `places`.

    Args:
        rollout, further: as TRL holds them; `num_items_in_batch` is left to the caller.
        places, sources: (n,) row numbers.
    """
    taken = torch.arange(len(rollout["prompt_ids"]))
    taken[places] = sources + len(taken)
    one: Rollout = split_pixel_values_by_grid(dict(rollout))
    two: Rollout = split_pixel_values_by_grid(dict(further))
    widths = [(r["prompt_ids"].shape[1], r["completion_ids"].shape[1]) for r in (one, two)]
    width = tuple(map(max, zip(*widths, strict=True)))
    merged: Rollout = {}
    for name, value in one.items():
        if isinstance(value, list):
            both = [*value, *two[name]]
            merged[name] = [both[row] for row in taken.tolist()]
        elif isinstance(value, Tensor) and value.dim() and name != ROW:  # a place keeps its number
            sides = [
                _widened(name, r[name], w, width) for r, w in zip((one, two), widths, strict=True)
            ]
            merged[name] = torch.cat(sides)[taken.to(value.device)]
        else:
            merged[name] = value
    return unsplit_pixel_values_by_grid(merged)


def _widened(name: str, values: Tensor, width: tuple[int, int], wanted: tuple[int, ...]) -> Tensor:
    """Values with 0 on the left of prompts and on the right of completions, up to `wanted` tokens.

    Also where TRL writes the padding token: what a mask leaves out may be any token.
    """
    if values.dim() != 2:
        return values
    left, right = wanted[0] - width[0], wanted[1] - width[1]
    if name in PROMPTS:
        right = 0
    elif name not in BOTH:
        left = 0
    return torch.nn.functional.pad(values, (left, right))
