"""Groups of completions packed into rows, so that the model reads a group's prompt once.

A row holds the prompt without its last token, then a block for each completion: the prompt's last
token and the completion without its own last token. Each place of a block predicts a token of its
completion. Blocks stand end to end, padding is on both ends of a row:

    prompt        block 1    block 2
    . s P P w     t a b      t a c d     s system turn   P image   w text   t last token
    - - - - -     a b E      a c d E     labels: - none, E end of turn

A mask lets a block see the prompt and itself, and the positions of every block continue those of
the prompt. So each completion gets the log-probabilities that it has in a row of its own.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

NO_LABEL = -100  # torch's and TRL's
PADDING, PROMPT = -1, 0  # owners of a place; the blocks are numbered from 1


@dataclass(frozen=True)
class Groups:
    """Completions and the prompts that they share.

    Attributes:
        prompt_ids, prompt_mask: (groups, P) left-padded, one row a group.
        positions: (axes, groups, P) of the prompts' tokens (M-RoPE: time, height, width).
        completion_ids, completion_mask: (rows, C) right-padded.
        group_of_row: (rows,) from 0, ascending.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    positions: Tensor
    completion_ids: Tensor
    completion_mask: Tensor
    group_of_row: Tensor


class Packed(NamedTuple):
    """Model inputs with a row a group, S places each, and where each completion token stands.

    Attributes:
        mask: (groups, S, S) whether a place (second axis) sees another (third).
        taken: (rows, C) which completion tokens there are.
        groups, places: (tokens,) where the model predicts each of them, in the order of `taken`.
    """

    input_ids: Tensor
    position_ids: Tensor
    labels: Tensor
    mask: Tensor
    taken: Tensor
    groups: Tensor
    places: Tensor

    def unpack(self, values: Tensor) -> Tensor:
        """Values (groups, S) of places as values (rows, C) of completion tokens; 0 elsewhere."""
        unpacked = values.new_zeros(self.taken.shape)
        unpacked[self.taken] = values[self.groups, self.places]
        return unpacked


def pack(batch: Groups) -> Packed:
    """Pack the rows of each group into one."""
    taken, prompt = batch.completion_mask.bool(), batch.prompt_ids.shape[1] - 1
    starts, width = _block_starts(taken.sum(1), batch.group_of_row)
    steps = torch.arange(taken.shape[1], device=taken.device).expand_as(taken)
    groups = batch.group_of_row[:, None].expand_as(taken)[taken]
    places = (prompt + starts[:, None] + steps)[taken]
    size = len(batch.prompt_ids), prompt + width

    last = batch.prompt_ids[batch.group_of_row, -1:]
    blocks = torch.cat([last, batch.completion_ids[:, :-1]], dim=1)
    input_ids = batch.prompt_ids.new_zeros(size)
    input_ids[:, :prompt] = batch.prompt_ids[:, :-1]
    input_ids[groups, places] = blocks[taken]

    labels = torch.full_like(input_ids, NO_LABEL)
    labels[groups, places] = batch.completion_ids[taken]

    position_ids = batch.positions.new_zeros(len(batch.positions), *size)
    position_ids[:, :, :prompt] = batch.positions[:, :, :-1]
    position_ids[:, groups, places] = batch.positions[:, groups, -1] + steps[taken]

    owners = torch.full_like(input_ids, PADDING)
    owners[:, :prompt] = torch.where(batch.prompt_mask[:, :-1] == 1, PROMPT, PADDING)
    numbers = torch.arange(1, 1 + len(taken), device=taken.device)
    owners[groups, places] = numbers[:, None].expand_as(taken)[taken]
    return Packed(input_ids, position_ids, labels, _mask(owners), taken, groups, places)


def _block_starts(lengths: Tensor, group_of_row: Tensor) -> tuple[Tensor, int]:
    """Where each row's block begins behind its prompt, and the places of the longest group.

    Example: lengths 3 4 2 of groups 0 0 1 -> [0, 3, 0], 7
    """
    sizes = torch.zeros_like(lengths[: int(group_of_row[-1]) + 1])
    sizes = sizes.index_add(0, group_of_row, lengths)
    before = sizes.cumsum(0) - sizes  # of all earlier groups
    return lengths.cumsum(0) - lengths - before[group_of_row], int(sizes.max())


def _mask(owners: Tensor) -> Tensor:
    """Which place sees which, (groups, S, S), by the owners of places (groups, S).

    A place of padding sees itself: a softmax over nothing is NaN.
    """
    size = owners.shape[1]
    earlier = torch.ones(size, size, dtype=torch.bool, device=owners.device).tril()
    keys, queries = owners[:, None, :], owners[:, :, None]
    seen = ((keys == queries) | (keys == PROMPT)) & earlier & (keys != PADDING)
    return seen | torch.eye(size, dtype=torch.bool, device=owners.device)
