"""Decoding after a prefilled cache, for evaluation and rollouts: rows leave when they are done."""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.generation import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

TOKENS_PER_CHECK = {"cuda": 8}  # device type -> tokens between two looks at done rows; else 1


class PreallocatedLayer(DynamicLayer):
    """A KV cache layer with spare room, so that a new token does not copy all earlier ones."""

    room_tokens = 64

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Append states (rows, heads, tokens, width); return the states of all tokens so far."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if start == 0:
            self.lazy_initialization(key_states, value_states)
            self._buffers = [key_states[:, :, :0], value_states[:, :, :0]]
        if end > self._buffers[0].shape[-2]:
            self._buffers = [self._grown(states, start, end) for states in self._buffers]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        return self._set_length(end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices` (or a bool mask), in that order; a row may be repeated."""
        end = self.get_seq_length()
        self._buffers = [states[indices] for states in self._buffers]
        self._set_length(end)

    def _grown(self, states: Tensor, start: int, end: int) -> Tensor:
        rows, heads, _, width = states.shape
        buffer = states.new_empty(rows, heads, end + self.room_tokens, width)
        buffer[:, :, :start] = states[:, :, :start]
        return buffer

    def _set_length(self, end: int) -> tuple[Tensor, Tensor]:
        """Show the first `end` tokens of the buffers as the layer's keys and values."""
        self.keys, self.values = (states[:, :, :end] for states in self._buffers)
        return self.keys, self.values


def supports_shared_prefix(model: PreTrainedModel) -> bool:
    """Whether a part of a prompt has known positions and every layer caches its whole past.

    True for Qwen2.5-VL and its relatives (`get_rope_index`, M-RoPE), False with a sliding window.
    """
    layers = DynamicCache(config=model.config).layers
    return hasattr(model.base_model, "get_rope_index") and all(
        type(layer) is DynamicLayer for layer in layers
    )


def empty_cache(model: PreTrainedModel) -> Cache:
    """A KV cache of `PreallocatedLayer`s; see `supports_shared_prefix`."""
    return Cache(layers=[PreallocatedLayer() for _ in DynamicCache(config=model.config).layers])


def decode(
    model: PreTrainedModel,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **inputs: Any,
) -> Tensor:
    """Decoding for `generate(custom_generate=...)` that drops rows when they are done.

    To see which rows are done the CPU waits for the device. Greedily decoding on a GPU that is
    every few tokens (`TOKENS_PER_CHECK`), between which rows that are done generate padding: the
    tokens returned are the same. Sampling, random numbers are drawn for all rows, also for those
    that are done, and for no token more: the stream of random numbers is that of `generate`.

    Args:
        input_ids: (rows, tokens) whole prompts.
        inputs: `past_key_values`, which hold the prompts' first columns; `position_ids` of the
            other columns, all text; `attention_mask` of all columns, None without padding.

    Returns:
        Prompts and completions, (rows, tokens), right-padded.
    """
    past, position_ids = inputs["past_key_values"], inputs["position_ids"]
    attention_mask = inputs["attention_mask"]
    process_logits: Any = logits_processor  # declared for LongTensor, called with any Tensor
    live = torch.arange(len(input_ids), device=input_ids.device)  # rows still in the batch
    done = torch.zeros_like(live, dtype=torch.bool)
    columns = torch.tensor(input_ids.shape[1], device=input_ids.device)  # until every row is done
    samples = generation_config.do_sample
    tokens_per_check = 1 if samples else TOKENS_PER_CHECK.get(input_ids.device.type, 1)
    while len(live):
        for _ in range(tokens_per_check):
            logits = model(
                input_ids=input_ids[live, past.get_seq_length() :],
                attention_mask=attention_mask,
                position_ids=position_ids.expand(3, -1, -1),
                past_key_values=past,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            scores = process_logits(input_ids, scores_of_all(logits, live, len(input_ids)))
            chosen = draw(scores) if samples else scores.argmax(-1)
            tokens = torch.where(done, generation_config.pad_token_id, chosen)
            columns += ~done.all()
            input_ids = torch.cat([input_ids, tokens[:, None]], dim=1)
            position_ids = position_ids[:, -1:] + 1
            if attention_mask is not None:
                ones = torch.ones_like(attention_mask[:, :1])
                attention_mask = torch.cat([attention_mask, ones], dim=1)
            done = done | stopping_criteria(input_ids, None)
        unfinished = (~done[live]).nonzero()[:, 0]  # waits for the device
        if len(unfinished) < len(live):
            live, position_ids = live[unfinished], position_ids[unfinished]
            attention_mask = None if attention_mask is None else attention_mask[unfinished]
            past.batch_select_indices(unfinished)
    return input_ids[:, : int(columns)]


def scores_of_all(logits: Tensor, live: Tensor, rows: int) -> Tensor:
    """32-bit scores (rows, tokens) from the logits of the rows `live`, 0 for those that have left.

    Logits processors expect one row for each prompt, as `generate` calls them.
    """
    scores = logits.new_zeros(rows, logits.shape[1], dtype=torch.float32)
    scores[live] = logits.float()
    return scores


def draw(scores: Tensor) -> Tensor:
    """A token of each row (rows,), drawn as `generate` draws it from scores (rows, tokens)."""
    return torch.multinomial(scores.softmax(-1), num_samples=1).squeeze(1)
