"""Prompts for families whose images cannot be encoded apart: whole rows, as processors make them.

Qwen3-VL has image features beside those that `generate` takes; InternVL and SmolVLM see tiles.
"""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

from vlm_r1.data.images import open_image

ENCODED_APART = ("Qwen2VLProcessor", "Qwen2_5_VLProcessor")


def encodes_apart(processor: ProcessorMixin) -> bool:
    """Whether an image may be encoded once for all its phrases."""
    return type(processor).__name__ in ENCODED_APART


def count_tokens(processor: ProcessorMixin, text: str, image: Path) -> int:
    """Tokens of a prompt, its image's included; opens the image."""
    return len(processor(text=[text], images=[[open_image(image)]])["input_ids"][0])


def read_whole(
    model: PreTrainedModel, processor: ProcessorMixin, texts: list[str], files: list[Path]
) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """What `generate` takes of any family, and the (height, width) that it sees of each image.

    An image that is cut into tiles keeps its own size: boxes are asked for in shares of it.
    """
    images = [open_image(file) for file in files]
    inputs = processor(
        text=texts, images=[[one] for one in images], padding=True, return_tensors="pt"
    ).to(model.device, model.dtype)
    if "image_grid_thw" in inputs:
        sizes = inputs["image_grid_thw"][:, 1:] * processor.image_processor.patch_size
        return dict(inputs), [tuple(size) for size in sizes.tolist()]
    return dict(inputs), [(one.height, one.width) for one in images]
