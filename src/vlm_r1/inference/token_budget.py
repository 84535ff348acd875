"""`evaluate.batch_tokens: null`: the token budget of a batch, from the memory of the GPUs.

It follows from the model and the size of the memory alone, not from what is free at the moment, so
that an evaluation makes the same batches whenever it runs on GPUs of one kind.
"""

import logging
from typing import Any

import torch
from transformers import PreTrainedModel

from vlm_r1.errors import ConfigError

logger = logging.getLogger(__name__)

SHARE = 0.7  # of the memory beside the weights; the rest: CUDA context, fragmentation, other use
MULTIPLE = 4096  # the budget is a multiple of it
KV_COPIES = 2  # rows are copied when their image's prefix is shared out and when others leave
LAYER_VECTORS, LAYER_HIDDEN = 4, 3  # of one layer at a time: queries, keys, values, output; MLP
LOGIT_COPIES, ROW_TOKENS = 3, 256  # 32-bit logits of each row, which has at least so many tokens


def token_budget(model: PreTrainedModel) -> int:
    """Tokens of a batch that fit beside `model` on the smallest of this node's GPUs.

    Raises:
        ConfigError: the model is not on a GPU, its family cuts tiles, or nothing fits.
    """
    config: Any = model.config
    if model.device.type != "cuda" or not hasattr(config.vision_config, "spatial_merge_size"):
        raise _unusable(f"{config.model_type} on {model.device.type}")
    sizes = [
        torch.cuda.get_device_properties(number).total_memory
        for number in range(torch.cuda.device_count())
    ]
    free = SHARE * (min(sizes) - model.get_memory_footprint())
    budget = int(free / token_bytes(config, model.dtype.itemsize)) // MULTIPLE * MULTIPLE
    if budget < MULTIPLE:
        raise _unusable(f"{min(sizes) / 2**30:.0f} GiB, too little for {MULTIPLE} tokens")
    logger.info("evaluate.batch_tokens: %d, by the GPUs' memory", budget)
    return budget


def token_bytes(config: Any, number_bytes: int) -> float:
    """Memory that a token takes at the worst moment: KV cache, one layer of each kind, logits.

    A token is counted as an image token, behind which the vision tower has several patches.
    """
    text, vision = config.text_config, config.vision_config
    head_width = text.hidden_size // text.num_attention_heads
    cached = KV_COPIES * 2 * text.num_hidden_layers * text.num_key_value_heads * head_width
    layers = [(1, text), (vision.spatial_merge_size**2, vision)]
    live = sum(
        count * (LAYER_VECTORS * one.hidden_size + LAYER_HIDDEN * one.intermediate_size)
        for count, one in layers
    )
    logits = LOGIT_COPIES * 4 * text.vocab_size / ROW_TOKENS
    return number_bytes * (cached + live) + logits


def _unusable(got: str) -> ConfigError:
    return ConfigError(
        got=f"evaluate.batch_tokens: null with {got}",
        need="a GPU, and a family whose images are not cut into tiles",
        because="the budget is computed from the GPU's memory and the model's layers",
        do="give a number, as 16384",
    )
