"""Tiny untrained models of families other than Qwen2.5-VL, built from configs."""

from pathlib import Path

import torch
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor

from vlm_r1.models.tiny.model import CHAT_TEMPLATE, build_tokenizer

TEXTS = ["Please provide the box. <think> </think> <answer> </answer>"]
INTERNVL_TILE_PX = 56  # side of a tile: 4 x 4 patches, 4 image tokens


def write_tiny_qwen3_vl(folder: Path) -> None:
    """Write an untrained Qwen3-VL of 0.2 M parameters and its processor."""
    tokenizer = build_tokenizer(TEXTS)
    token_id = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "intermediate_size": 128,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 30.0,
                "mrope_section": [2, 3, 3],
                "mrope_interleaved": True,
            },
            "pad_token_id": token_id("<|endoftext|>"),
            "initializer_range": 0.08,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": 16,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": 0.08,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
        initializer_range=0.08,
    )
    torch.manual_seed(0)
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)


def write_tiny_internvl(folder: Path) -> None:
    """Write an untrained InternVL of 0.1 M parameters and its processor, with tiles of 56 px."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(TEXTS).backend_tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        start_image_token="<|vision_start|>",
        end_image_token="<|vision_end|>",
        context_image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        clean_up_tokenization_spaces=False,
    )
    token_id = tokenizer.convert_tokens_to_ids
    config = InternVLConfig(
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 128,
            "eos_token_id": token_id("<|im_end|>"),
            "pad_token_id": token_id("<|endoftext|>"),
            "initializer_range": 0.08,
        },
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": [INTERNVL_TILE_PX, INTERNVL_TILE_PX],
            "patch_size": [14, 14],
            "initializer_range": 0.08,
        },
        image_token_id=token_id("<|image_pad|>"),
        image_seq_length=4,
        tie_word_embeddings=True,
        initializer_range=0.08,
    )
    torch.manual_seed(0)
    InternVLForConditionalGeneration(config).save_pretrained(folder)
    InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            size={"height": INTERNVL_TILE_PX, "width": INTERNVL_TILE_PX}
        ),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=4,
        # its processor writes the tokens around the image itself
        chat_template=CHAT_TEMPLATE.replace(
            "<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>\\n"
        ),
    ).save_pretrained(folder)
