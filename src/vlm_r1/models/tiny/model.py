"""A tiny Qwen2.5-VL: 2.7 M parameters, own tokenizer, Qwen's image processor and chat format.

It has the classes of the 3B model (`Qwen2_5_VLForConditionalGeneration`, `Qwen2_5_VLProcessor`), so
prompts, pixel budgets, padding and checkpoints behave on a laptop as they do for the 3B model.
"""

from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import ByteLevel, Digits
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from vlm_r1.rec import prompts

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
VOCABULARY_SIZE = 768
# Texts that never vary are one token each, which cuts an R1 prompt from 85 tokens to 40.
FIXED_TEXTS = (
    prompts.QUESTION.partition(" {expression}")[0],
    prompts.R1.removeprefix("{question}"),
    prompts.JSON_REQUEST.removeprefix("{question}"),
    "You are a helpful assistant.",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "```json\n[\n\t",
    '{"bbox_2d": [',
    '], "label": "',
    '"}\n]\n```',
    "]}",
    ", ",
)
# With transformers' default of 0.02 a model of this width only learns the marginal distribution.
INITIALIZER_RANGE = 0.08
# With Qwen's 1e6 the width section of M-RoPE turns by 0.01 rad over a whole 3 x 3 grid, too little
# for a tiny model to tell columns apart (docs/footguns.md).
ROPE_THETA = 30.0

CHAT_TEMPLATE = r"""
{%- if messages[0].role != 'system' %}
    {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- else %}
        {%- for part in message.content %}
            {%- if part.type == 'image' %}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' }}
            {%- elif part.type == 'text' %}
                {{- part.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""


def build_tokenizer(corpus: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on `corpus`; each digit and each fixed text is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in FIXED_TEXTS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS),
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
        clean_up_tokenization_spaces=False,
    )


def build_processor(
    tokenizer: PreTrainedTokenizerFast, min_pixels: int, max_pixels: int
) -> Qwen2_5_VLProcessor:
    """Qwen2.5-VL's processor with `tokenizer` and the given pixel budget."""
    size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast, seed: int
) -> Qwen2_5_VLForConditionalGeneration:
    """A model with random weights drawn from `seed`."""
    torch.manual_seed(seed)
    return Qwen2_5_VLForConditionalGeneration(tiny_config(tokenizer))


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """2.7 M parameters: 4 text layers of width 192, 3 vision blocks of width 128."""
    token_id = tokenizer.convert_tokens_to_ids
    values: dict[str, Any] = {
        "text_config": _text_config(tokenizer),
        "vision_config": _vision_config(),
        "tie_word_embeddings": True,
        "initializer_range": INITIALIZER_RANGE,
        "image_token_id": token_id("<|image_pad|>"),
        "video_token_id": token_id("<|video_pad|>"),
        "vision_start_token_id": token_id("<|vision_start|>"),
        "vision_end_token_id": token_id("<|vision_end|>"),
        "eos_token_id": token_id("<|im_end|>"),
        "pad_token_id": token_id("<|endoftext|>"),
    }
    return Qwen2_5_VLConfig(**values)


def _text_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "intermediate_size": 512,
        "max_position_embeddings": 1024,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": ROPE_THETA,
            "mrope_section": [4, 6, 6],
        },
        "tie_word_embeddings": True,
        "initializer_range": INITIALIZER_RANGE,
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    }


def _vision_config() -> dict[str, Any]:
    return {
        "depth": 3,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 4,
        "out_hidden_size": 192,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [0, 1, 2],
        "initializer_range": INITIALIZER_RANGE,
    }
