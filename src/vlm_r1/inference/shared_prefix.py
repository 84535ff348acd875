"""Prefix KV cache: prefills each image's prompt prefix once for all of its rows.

A prompt is a prefix (system turn, image, the words with which every question begins) and a suffix
(the expression and the words that end the prompt). The prefix is the same for all expressions of an
image, so its keys and values are computed once and copied to the image's rows. Prefixes and
suffixes are left-padded separately, so that all prefixes end in one column:

    prefix        suffix
    . s P P w     . . e t      s system turn   P image        w first words of the question
    s P P P w     e e e t      e expression    t end of turn  . padding
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vlm_r1.models.decoding import empty_cache


def prefix_lengths(ids: list[list[int]], image_token: int) -> list[int]:
    """Length of each row's prefix: its last image token and what all rows have in common after it.

    At least one token is left for the suffix, because generation continues from its last logits.

    Example: image token 9, rows 1 9 9 5 6 7 and 1 9 5 6 8 -> [5, 4]
    """
    image_ends = [len(row) - row[::-1].index(image_token) for row in ids]
    texts = [row[end:] for row, end in zip(ids, image_ends, strict=True)]
    longest = min(map(len, texts)) - 1
    common = next((i for i in range(longest) if len({text[i] for text in texts}) > 1), longest)
    return [end + common for end in image_ends]


def prefill_prefixes(
    model: PreTrainedModel,
    prefixes: dict[str, Tensor],
    image_features: list[Tensor],
    grids: Tensor,
    image_of_row: list[int],
) -> tuple[Cache, Tensor]:
    """Prefill one prefix per image, then copy keys and values to the rows that share it.

    Args:
        prefixes: input_ids, attention_mask, mm_token_type_ids, each (images, tokens).
        image_features: of each image, (image tokens, width).
        grids: (images, 3) patches in time, height, width.
        image_of_row: (rows,) index of each row's image.

    Returns:
        The KV cache of all rows, and the position that follows each row's prefix, (rows, 1).
    """
    base: Any = model.base_model
    features: Any = image_features  # a list is accepted, though the output class declares a tensor
    cache = empty_cache(model)
    positions, _ = base.get_rope_index(**prefixes, image_grid_thw=grids)
    base(
        input_ids=prefixes["input_ids"],
        attention_mask=prefixes["attention_mask"],
        position_ids=positions,
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=features)},
        past_key_values=cache,
        use_cache=True,
    )
    rows = torch.tensor(image_of_row, device=positions.device)
    cache.batch_select_indices(rows)
    return cache, positions[:, rows].amax(dim=(0, 2))[:, None] + 1
