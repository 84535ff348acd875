"""Prompts for families whose images cannot be encoded separately: the processor makes whole rows.

Qwen3-VL has image features besides the ones that `generate` accepts; InternVL and SmolVLM cut an
image into tiles.
"""

from pathlib import Path
from typing import Any

from transformers import ProcessorMixin

from vlm_r1.data.images import open_image

SEPARATE_IMAGE_PROCESSORS = ("Qwen2VLProcessor", "Qwen2_5_VLProcessor")


def encodes_images_separately(processor: ProcessorMixin) -> bool:
    """Whether an image may be encoded once and its features shared by several rows."""
    return type(processor).__name__ in SEPARATE_IMAGE_PROCESSORS


def count_prompt_tokens(processor: ProcessorMixin, text: str, image: Path) -> int:
    """Length of a prompt, image tokens included; opens the image."""
    return len(processor(text=[text], images=[[open_image(image)]])["input_ids"][0])


def prepare_whole_prompts(
    processor: Any, texts: list[str], files: list[Path]
) -> tuple[Any, list[tuple[int, int]]]:
    """Inputs of `generate` for any family, and the (height, width) the model sees of each image.

    A tiled image keeps its own size: such families write boxes relative to the whole image.
    """
    images = [open_image(file) for file in files]
    inputs = processor(
        text=texts, images=[[one] for one in images], padding=True, return_tensors="pt"
    )
    if "image_grid_thw" in inputs:
        patch_px = processor.image_processor.patch_size
        grids = inputs["image_grid_thw"].tolist()
        return inputs, [(rows * patch_px, columns * patch_px) for _, rows, columns in grids]
    return inputs, [(one.height, one.width) for one in images]
