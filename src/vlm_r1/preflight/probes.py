"""What a real sample becomes in processor and model, measured: versions alone tell little."""

import copy
from dataclasses import dataclass

import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin

from vlm_r1.config import Task
from vlm_r1.errors import ModelError
from vlm_r1.models.families import Family
from vlm_r1.models.loading import chat_text
from vlm_r1.preflight.checks import Check

PROBE_PX = 512  # side of the image that a small budget is tried on
MARGIN = 1.05  # tiles and squares of a fixed size miss a budget by a little


@dataclass(frozen=True)
class Sample:
    """One question as training asks it."""

    image: Image.Image
    text: str


def processor_checks(
    processor: ProcessorMixin, family: Family, task: Task, sample: Sample
) -> dict[str, Check]:
    """What the processor makes of a sample, in a moment."""
    return {
        "padding": lambda: check_padding(processor, sample),
        "pixels": lambda: check_pixels(processor, family, task, sample),
    }


def model_checks(
    model: PreTrainedModel, processor: ProcessorMixin, task: Task, sample: Sample
) -> dict[str, Check]:
    """What the model makes of it: a forward pass."""
    return {
        "image tokens": lambda: check_image_tokens(model, processor, sample),
        "positions": lambda: check_positions(model, processor, sample),
        "weights": lambda: check_weights(model, task),
    }


def check_padding(processor: ProcessorMixin, sample: Sample) -> str:
    """A shorter prompt in a batch is padded on the left, where nothing is generated (TRL #5785)."""
    prompts = [_prompt(processor, sample), _prompt(processor, sample, " and what is beside it")]
    inputs = processor(text=prompts, images=[[sample.image]] * 2, padding=True)
    if not all(row[-1] for row in inputs["attention_mask"]):
        raise ModelError(
            got="a processor that pads on the right",
            need='tokenizer.padding_side = "left"',
            because="answers would follow padding, and Qwen2.5-VL's token types go astray",
            do="open it with vlm_r1.models.loading.load_processor",
        )
    return "left"


def check_pixels(processor: ProcessorMixin, family: Family, task: Task, sample: Sample) -> str:
    """The budget is kept, measured on what the model would get: the sample, and a tried limit.

    A processor that takes no notice of its limits (transformers #41955) shows it on the small ones.
    """
    trial = copy.deepcopy(processor.image_processor)
    few = task.model_copy(update={"min_pixels": 1, "max_pixels": PROBE_PX**2 // 4})
    many = task.model_copy(update={"min_pixels": 4 * PROBE_PX**2, "max_pixels": 8 * PROBE_PX**2})
    image = Image.new("RGB", (PROBE_PX, PROBE_PX))
    family.set_budget(trial, few)
    _require_pixels(_pixels(trial, image), few, "an image above it")
    if family.square_px is not None:  # tiles have no lower limit
        family.set_budget(trial, many)
        _require_pixels(_pixels(trial, image), many, "an image below it")
    seen = _pixels(processor.image_processor, sample.image)
    lower = task.min_pixels if family.square_px is not None else 1
    _require_pixels(seen, task.model_copy(update={"min_pixels": lower}), "the sample")
    width, height = sample.image.size
    return f"{width} x {height} is seen as {seen} pixels of {task.min_pixels} to {task.max_pixels}"


def check_image_tokens(model: PreTrainedModel, processor: ProcessorMixin, sample: Sample) -> str:
    """As many image tokens in the prompt as features from the tower, and finite answers."""
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
            need="numbers",
            because="the first step would make every weight NaN",
            do="try task.dtype: float32 or task.attention: eager",
        )
    return f"{expected} tokens, as many features"


def check_positions(model: PreTrainedModel, processor: ProcessorMixin, sample: Sample) -> str:
    """A still image's tokens stand in rows and columns at one time (Qwen2-VL, section 2.1).

    What transformers 5.4.0 to 5.5.3 get wrong for Qwen2.5-VL, measured.
    """
    inputs = _inputs(processor, sample)
    if "image_grid_thw" not in inputs:
        return "not a grid"
    positions, _ = model.model.get_rope_index(**_of_rope(inputs))
    is_image = inputs["input_ids"][0] == model.config.image_token_id
    found = positions[:, 0, is_image]
    start = int(is_image.nonzero()[0])
    merge = processor.image_processor.merge_size
    _, rows, columns = (int(n) // merge if i else int(n) for i, n in _grid(inputs))
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).T + start
    expected = torch.cat([torch.full_like(place[:1], start), place])
    after = int(positions[0, 0, start + rows * columns])
    if not torch.equal(found.cpu(), expected) or after != start + max(rows, columns):
        raise ModelError(
            got=f"other rotary positions for an image of {rows} x {columns} tokens",
            need="one time, rows and columns from the image's first token on",
            because="the model would see a distorted image, and train on it",
            do="pip install 'transformers>=5.5.4' (5.4.0 to 5.5.3 have this fault)",
        )
    return f"{rows} x {columns}"


def check_weights(model: PreTrainedModel, task: Task) -> str:
    """Every weight is in the dtype that was asked for."""
    found = {str(p.dtype) for p in model.parameters() if p.is_floating_point()}
    if found != {f"torch.{task.dtype}"}:
        raise ModelError(
            got=f"weights in {', '.join(sorted(found))}",
            need=f"{task.dtype}, task.dtype",
            because="a dtype that is ignored doubles memory (VLM-R1 until February 2025)",
            do="open the model with vlm_r1.models.loading.load_model; look at its version",
        )
    return task.dtype


def _prompt(processor: ProcessorMixin, sample: Sample, more: str = "") -> str:
    return chat_text(processor, sample.text + more)


def _inputs(processor: ProcessorMixin, sample: Sample) -> BatchFeature:
    return processor(
        text=[_prompt(processor, sample)], images=[[sample.image]], return_tensors="pt"
    )


def _of_rope(inputs: BatchFeature) -> dict:
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    return {name: inputs[name] for name in names}


def _grid(inputs: BatchFeature) -> list[tuple[int, int]]:
    return list(enumerate(inputs["image_grid_thw"][0].tolist()))


def _pixels(image_processor, image: Image.Image) -> int:
    """Pixels that reach the model: of the grid, or of all tiles."""
    values = image_processor([[image]], return_tensors="pt")["pixel_values"]
    return values.numel() // 3 // getattr(image_processor, "temporal_patch_size", 1)


def _require_pixels(seen: int, task: Task, what: str) -> None:
    if not task.min_pixels / MARGIN <= seen <= task.max_pixels * MARGIN:
        raise ModelError(
            got=f"{seen} pixels of {what}",
            need=f"{task.min_pixels} to {task.max_pixels}, the pixel budget",
            because="one method would train on other images than it is evaluated on",
            do="open the processor with vlm_r1.models.loading.load_processor; look at its version",
        )


def _other_processor(fault: str) -> ModelError:
    return ModelError(
        got=fault,
        need="one image token for every image feature",
        because="the processor belongs to another model, or truncates prompts",
        do="take model and processor from one folder; SFT needs max_length: null",
    )
