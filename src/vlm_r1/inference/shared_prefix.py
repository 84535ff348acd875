"""Rows about one image read it once; a row that is done leaves the batch. Used by `generation`.

A prompt is a head (system turn, image, the words that every question begins with) and a tail (the
phrase, the words that end the prompt). The head is the same for all phrases of an image: its keys
and values are computed once and copied to their rows. Heads and tails are padded on the left, each
by themselves, so that all heads end in one column:

    head          tail
    . s P P w     . . p e      s system turn   P image   w first words
    s P P P w     p p p e      p phrase        e end       . padding
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.generation import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.modeling_outputs import BaseModelOutputWithPooling


class RoomyLayer(DynamicLayer):
    """A cache layer that keeps room for tokens to come instead of copying all at each of them."""

    room_tokens = 64

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Append states of shape (rows, heads, tokens, width); return all there are."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if start == 0:
            self.lazy_initialization(key_states, value_states)
            self._roomy = [key_states[:, :, :0], value_states[:, :, :0]]
        if end > self._roomy[0].shape[-2]:
            self._roomy = [self._with_room(states, start, end) for states in self._roomy]
        for roomy, states in zip(self._roomy, (key_states, value_states), strict=True):
            roomy[:, :, start:end] = states
        return self._show(end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices`, in that order; a row may be named several times."""
        end = self.get_seq_length()
        self._roomy = [states[indices] for states in self._roomy]
        self._show(end)

    def _with_room(self, states: Tensor, start: int, end: int) -> Tensor:
        rows, heads, _, width = states.shape
        roomy = states.new_empty(rows, heads, end + self.room_tokens, width)
        roomy[:, :, :start] = states[:, :, :start]
        return roomy

    def _show(self, end: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (states[:, :, :end] for states in self._roomy)
        return self.keys, self.values


def can_share(model: PreTrainedModel) -> bool:
    """Whether positions can be told for a part of a prompt, and every layer keeps its whole past.

    Qwen2.5-VL and its relatives can (`get_rope_index`, M-RoPE); a sliding window cannot.
    """
    layers = DynamicCache(config=model.config).layers
    return hasattr(model.base_model, "get_rope_index") and all(
        type(layer) is DynamicLayer for layer in layers
    )


def head_lengths(ids: list[list[int]], image_token: int) -> list[int]:
    """Tokens of each row's head: up to its image's last, and on while all rows say the same.

    One token at least is left to the tail: the answer begins at its end.

    Example: image token 9, rows 1 9 9 5 6 7 and 1 9 5 6 8 -> [5, 4]
    """
    images_end = [len(row) - row[::-1].index(image_token) for row in ids]
    tails = [row[end:] for row, end in zip(ids, images_end, strict=True)]
    longest = min(map(len, tails)) - 1
    same = next((i for i in range(longest) if len({tail[i] for tail in tails}) > 1), longest)
    return [end + same for end in images_end]


def read_heads(
    model: PreTrainedModel,
    heads: dict[str, Tensor],
    images: list[Tensor],
    grids: Tensor,
    which: list[int],
) -> tuple[Cache, Tensor]:
    """Read one head an image, then copy keys and values to the rows that share it.

    Args:
        heads: input_ids, attention_mask, mm_token_type_ids, each (images, tokens).
        images: features of each image, (tokens, width).
        grids: (images, 3) patches in time, height, width.
        which: (rows,) each row's image.

    Returns:
        The cache of all rows, and the position that follows each row's head, (rows, 1).
    """
    cache = Cache(layers=[RoomyLayer() for _ in DynamicCache(config=model.config).layers])
    positions, _ = model.base_model.get_rope_index(**heads, image_grid_thw=grids)
    model.base_model(
        input_ids=heads["input_ids"],
        attention_mask=heads["attention_mask"],
        position_ids=positions,
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=images)},
        past_key_values=cache,
        use_cache=True,
    )
    rows = torch.tensor(which, device=positions.device)
    cache.batch_select_indices(rows)
    return cache, positions[:, rows].amax(dim=(0, 2))[:, None] + 1


def decode(
    model: PreTrainedModel,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **inputs: Any,
) -> Tensor:
    """Greedy decoding for `generate(custom_generate=...)`: rows that are done are dropped.

    Args:
        input_ids: (rows, tokens) whole prompts.
        inputs: `past_key_values`, which hold the prompts' first columns; `position_ids` of the
            other columns, all text; `attention_mask` of all columns, None if nothing is padding.

    Returns:
        Prompts and answers, (rows, tokens), padded on the right.
    """
    past, position_ids = inputs["past_key_values"], inputs["position_ids"]
    attention_mask = inputs["attention_mask"]
    live = torch.arange(len(input_ids), device=input_ids.device)
    while len(live):
        logits = model(
            input_ids=input_ids[live, past.get_seq_length() :],
            attention_mask=attention_mask,
            position_ids=position_ids.expand(3, -1, -1),
            past_key_values=past,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        # Processors count rows: they see all of them, as `generate` shows them.
        scores = logits.new_zeros(len(input_ids), logits.shape[1], dtype=torch.float32)
        scores[live] = logits.float()
        best = logits_processor(input_ids, scores).argmax(-1)
        tokens = torch.full_like(best, generation_config.pad_token_id)
        tokens[live] = best[live]
        input_ids = torch.cat([input_ids, tokens[:, None]], dim=1)
        position_ids = position_ids[:, -1:] + 1
        if attention_mask is not None:
            attention_mask = torch.cat([attention_mask, torch.ones_like(tokens[live])[:, None]], 1)
        going_on = ~stopping_criteria(input_ids, None)[live]
        if not going_on.all():
            live, position_ids = live[going_on], position_ids[going_on]
            attention_mask = None if attention_mask is None else attention_mask[going_on]
            past.batch_select_indices(going_on)
    return input_ids
