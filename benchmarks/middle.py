"""A random Qwen2.5-VL of 48 million parameters, between the tiny model and the 3B."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from vlm_r1.models.tiny.model import tiny_config

ROOT = Path(__file__).parents[1]
TEXT: dict[str, Any] = {
    "hidden_size": 640,
    "num_hidden_layers": 8,
    "num_attention_heads": 10,
    "num_key_value_heads": 2,
    "intermediate_size": 1920,
    "max_position_embeddings": 4096,
}
MROPE = [8, 12, 12]  # sections of the rotary encoding: half a head's width
VISION: dict[str, Any] = {
    "hidden_size": 320,
    "depth": 6,
    "num_heads": 5,
    "intermediate_size": 864,
    "fullatt_block_indexes": [2, 5],
    "out_hidden_size": 640,
}
INITIALIZER_RANGE = 0.03


def wider_config(
    tokenizer: Any, text: dict[str, Any], vision: dict[str, Any], initializer_range: float
) -> Qwen2_5_VLConfig:
    """The tiny model's config with other widths and depths."""
    values = tiny_config(tokenizer).to_dict()
    values["initializer_range"] = initializer_range
    values["text_config"] |= text | {"initializer_range": initializer_range}
    values["text_config"]["rope_parameters"]["mrope_section"] = MROPE
    values["vision_config"] |= vision | {"initializer_range": initializer_range}
    for derived in ("layer_types", "head_dim"):
        values["text_config"].pop(derived, None)
    return Qwen2_5_VLConfig(**values)


def make_middle(folder: Path) -> None:
    """Write the random model with the tiny model's processor."""
    processor = AutoProcessor.from_pretrained(ROOT / "models/base")
    torch.manual_seed(0)
    config = wider_config(processor.tokenizer, TEXT, VISION, INITIALIZER_RANGE)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
