"""Preflight checks that measure: a sample goes through the processor and the model.

Versions alone do not show a processor that ignores its pixel budget or positions that are wrong.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from vlm_r1.config import Task
from vlm_r1.errors import ModelError
from vlm_r1.models.families import Family
from vlm_r1.models.loading import chat_text
from vlm_r1.preflight.checks import Check

PROBE_PX = 512  # side of the square image that tests the limits of a pixel budget
MARGIN = 1.05  # tiles of a fixed size miss a budget slightly


@dataclass(frozen=True)
class Sample:
    """An image and the user turn about it, as in training."""

    image: Image.Image
    text: str


def processor_checks(
    processor: ProcessorMixin, family: Family, task: Task, sample: Sample
) -> dict[str, Check]:
    """Quick checks of what the processor makes of a sample."""
    return {
        "padding": lambda: check_padding(processor, sample),
        "pixels": lambda: check_pixels(processor, family, task, sample),
    }


def model_checks(
    model: PreTrainedModel, processor: ProcessorMixin, task: Task, sample: Sample
) -> dict[str, Check]:
    """Checks of what the model makes of a sample, with one forward pass."""
    return {
        "image tokens": lambda: check_image_tokens(model, processor, sample),
        "positions": lambda: check_positions(model, processor, sample),
        "weights": lambda: check_weights(model, task),
    }


def check_padding(processor: ProcessorMixin, sample: Sample) -> str:
    """Refuse right padding, after which generation would continue (TRL #5785)."""
    longer = f"{sample.text} and a few more words"
    prompts = [chat_text(processor, text) for text in (sample.text, longer)]
    inputs = processor(text=prompts, images=[[sample.image]] * 2, padding=True)
    if not all(row[-1] for row in inputs["attention_mask"]):
        raise ModelError(
            got="a processor that pads on the right",
            need='tokenizer.padding_side = "left"',
            because="completions would follow padding, and Qwen2.5-VL's token types be misaligned",
            do="load it with vlm_r1.models.loading.load_processor",
        )
    return "left"


def check_pixels(processor: ProcessorMixin, family: Family, task: Task, sample: Sample) -> str:
    """Refuse a processor that does not keep the pixel budget, measured on its output.

    The task's limits may be too wide for the sample to reach them, so a copy of the processor is
    given narrow ones: one that ignores its limits (transformers #41955) fails there.
    """
    has_lower_limit = family.square_px is not None  # tiles of a fixed size have none
    image = Image.new("RGB", (PROBE_PX, PROBE_PX))
    probe = copy.deepcopy(processor.image_processor)
    low = task.model_copy(update={"min_pixels": 1, "max_pixels": PROBE_PX**2 // 4})
    family.set_budget(probe, low)
    _require_pixels(_pixels(probe, image), low, "an image above it")
    if has_lower_limit:
        limits = {"min_pixels": 4 * PROBE_PX**2, "max_pixels": 8 * PROBE_PX**2}
        high = task.model_copy(update=limits)
        family.set_budget(probe, high)
        _require_pixels(_pixels(probe, image), high, "an image below it")
    seen = _pixels(processor.image_processor, sample.image)
    budget = task if has_lower_limit else task.model_copy(update={"min_pixels": 1})
    _require_pixels(seen, budget, "the sample")
    width, height = sample.image.size
    return f"{width} x {height} is seen as {seen} pixels of {task.min_pixels} to {task.max_pixels}"


def check_image_tokens(model: PreTrainedModel, processor: ProcessorMixin, sample: Sample) -> str:
    """Refuse unequal numbers of image tokens and image features, and logits that are not finite."""
    inputs = _inputs(processor, sample)
    expected = int((inputs["input_ids"] == model.config.image_token_id).sum())
    try:
        with torch.no_grad():
            logits = model(**inputs.to(model.device, model.dtype)).logits
    except ValueError as error:
        raise _other_processor(f"{expected} image tokens; {error}") from error
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(
            got=f"logits that are not finite, in {model.dtype}",
            need="finite logits",
            because="the first training step would make every weight NaN",
            do="try task.dtype: float32 or task.attention: eager",
        )
    return f"{expected} tokens, as many features"


def check_positions(model: PreTrainedModel, processor: ProcessorMixin, sample: Sample) -> str:
    """Refuse wrong rotary positions of a still image's tokens, as transformers 5.4.0 to 5.5.3 give.

    M-RoPE (Qwen2-VL, arXiv 2409.12191, section 2.1): all tokens of the image have one temporal
    position, and their row and column count from there; the text goes on behind the largest.
    """
    inputs = _inputs(processor, sample)
    if "image_grid_thw" not in inputs:
        return "not a grid"
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    core: Any = model.model
    positions, _ = core.get_rope_index(**{name: inputs[name] for name in names})
    is_image = inputs["input_ids"][0] == model.config.image_token_id
    start = int(is_image.nonzero()[0])
    merge = processor.image_processor.merge_size
    rows, columns = (int(side) // merge for side in inputs["image_grid_thw"][0, 1:])
    row_and_column = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).T + start
    expected = torch.cat([torch.full_like(row_and_column[:1], start), row_and_column])
    found = positions[:, 0, is_image].cpu()
    after_image = int(positions[0, 0, start + rows * columns])
    if not torch.equal(found, expected) or after_image != start + max(rows, columns):
        raise ModelError(
            got=f"other rotary positions for an image of {rows} x {columns} tokens",
            need="one temporal position, rows and columns counted from the image's first token",
            because="the model would see a distorted image, and train on it",
            do="pip install 'transformers>=5.5.4' (5.4.0 to 5.5.3 have this fault)",
        )
    return f"{rows} x {columns}"


def check_weights(model: PreTrainedModel, task: Task) -> str:
    """Refuse weights in another dtype than the task's."""
    found = {str(p.dtype) for p in model.parameters() if p.is_floating_point()}
    if found != {f"torch.{task.dtype}"}:
        raise ModelError(
            got=f"weights in {', '.join(sorted(found))}",
            need=f"{task.dtype}, task.dtype",
            because="an ignored dtype doubles memory (VLM-R1 until February 2025)",
            do="load the model with vlm_r1.models.loading.load_model; check transformers' version",
        )
    return task.dtype


def _inputs(processor: ProcessorMixin, sample: Sample) -> BatchFeature:
    text = chat_text(processor, sample.text)
    return processor(text=[text], images=[[sample.image]], return_tensors="pt")


def _pixels(image_processor: Any, image: Image.Image) -> int:
    """Pixels that reach the model, summed over the patch grid or all tiles."""
    values = image_processor([[image]], return_tensors="pt")["pixel_values"]
    return values.numel() // 3 // getattr(image_processor, "temporal_patch_size", 1)


def _require_pixels(seen: int, task: Task, what: str) -> None:
    if not task.min_pixels / MARGIN <= seen <= task.max_pixels * MARGIN:
        raise ModelError(
            got=f"{seen} pixels of {what}",
            need=f"{task.min_pixels} to {task.max_pixels}, the pixel budget",
            because="a model would be evaluated on other images than it was trained on",
            do="load the processor with vlm_r1.models.loading.load_processor; "
            "check transformers' version",
        )


def _other_processor(fault: str) -> ModelError:
    return ModelError(
        got=fault,
        need="one image token for each image feature",
        because="the processor belongs to another model, or truncates prompts",
        do="take model and processor from one folder; SFT needs max_length: null",
    )
