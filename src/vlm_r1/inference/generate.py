"""Generation for one checkpoint: shared image prefixes, early stopping.

A batch is prepared on the CPU (`prepare_batch`: images opened, resized and cut into patches, texts
tokenized) and then generated (`generate_prepared`), so that the next one can be prepared meanwhile.

A row is done at its end of turn or at `</answer>`, a batch when all its rows are. The parser reads
nothing after the tag, so stopping there saves time and changes no score.
"""

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin
from transformers.generation import LogitsProcessor, StopStringCriteria
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vlm_r1.data.images import open_image
from vlm_r1.inference.chat_prompts import Prompt, batch_prompts, make_prompts
from vlm_r1.inference.questions import Completion, Question
from vlm_r1.inference.shared_prefix import prefill_prefixes, prefix_lengths
from vlm_r1.inference.whole_prompt import encodes_images_separately, prepare_whole_prompts
from vlm_r1.models.decoding import decode, supports_shared_prefix
from vlm_r1.rec.contract import STOP

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedBatch:
    """What the CPU makes of a batch, and the (height, width) that the model sees of each row.

    Attributes:
        inputs: pixels of the distinct images, or whole prompts (see `whole_prompt`).
        ids: (rows,) token ids of each row; empty for whole prompts.
        image_of_row: (rows,) index of each row's image; empty for whole prompts.
    """

    inputs: Any
    sizes: list[tuple[int, int]]
    ids: list[list[int]]
    image_of_row: list[int]


@dataclass(frozen=True)
class ImageFeatures:
    """A batch's distinct images after the vision tower, and the image of each row."""

    features: list[Tensor]  # of each image: (image tokens, width)
    grids: Tensor  # (images, 3): patches in time, height, width
    image_of_row: list[int]  # (rows,)


def generate_completions(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    questions: list[Question],
    batch_tokens: int,
    max_new_tokens: int,
) -> list[Completion]:
    """Greedy completions, in the order of `questions`."""
    prompts = make_prompts(processor, questions)
    completions: dict[int, Completion] = {}
    for rows in batch_prompts(prompts, batch_tokens, max_new_tokens):
        batch = [prompts[row] for row in rows]
        generated = generate_batch(model, processor, batch, max_new_tokens)
        completions.update(zip(rows, generated, strict=True))
    return [completions[row] for row in range(len(questions))]


def prepare_batch(processor: Any, batch: list[Prompt]) -> PreparedBatch:
    """Open a batch's images, each once, and tokenize its prompts; needs no model.

    Raises:
        DataError: an image is missing or broken.
    """
    if not encodes_images_separately(processor):
        texts, files = [p.text for p in batch], [p.image for p in batch]
        return PreparedBatch(*prepare_whole_prompts(processor, texts, files), [], [])
    index = {file: i for i, file in enumerate(dict.fromkeys(prompt.image for prompt in batch))}
    image_of_row = [index[prompt.image] for prompt in batch]
    pixels = processor.image_processor([open_image(file) for file in index], return_tensors="pt")
    patch_px = processor.image_processor.patch_size
    grids = pixels["image_grid_thw"].tolist()
    sizes = [(rows * patch_px, columns * patch_px) for _, rows, columns in grids]
    ids = _token_ids(processor, batch, pixels, image_of_row)
    return PreparedBatch(pixels, [sizes[i] for i in image_of_row], ids, image_of_row)


def generate_batch(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    batch: list[Prompt],
    max_new_tokens: int,
    noise: LogitsProcessor | None = None,
) -> list[Completion]:
    """Completions of one batch that is prepared and then generated."""
    prepared = prepare_batch(processor, batch)
    return generate_prepared(model, processor, prepared, max_new_tokens, noise)


@torch.inference_mode()
def generate_prepared(
    model: PreTrainedModel,
    processor: Any,
    batch: PreparedBatch,
    max_new_tokens: int,
    noise: LogitsProcessor | None = None,
) -> list[Completion]:
    """Completions of one prepared batch, each with the (height, width) that the model saw.

    Args:
        noise: of `Sampling`, for sampled answers; None: greedy ones.
    """
    if batch.ids:
        inputs = _shared_image_inputs(model, processor, batch)
    else:
        inputs = dict(batch.inputs.to(model.device, model.dtype))
    generator: Any = model
    output = generator.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        logits_processor=[] if noise is None else [noise],
        pad_token_id=processor.tokenizer.pad_token_id,
        stopping_criteria=[StopStringCriteria(processor.tokenizer, [STOP])],
    )
    new_tokens = output[:, inputs["input_ids"].shape[1] :]
    texts = processor.batch_decode(new_tokens, skip_special_tokens=True)
    ends, pad = _end_tokens(model), processor.tokenizer.pad_token_id
    return [
        Completion(text, size, *count_tokens(tokens, text, ends, pad, max_new_tokens))
        for tokens, text, size in zip(new_tokens.tolist(), texts, batch.sizes, strict=True)
    ]


def count_tokens(
    tokens: list[int], text: str, ends: set[int], pad: int, max_new_tokens: int
) -> tuple[int, bool]:
    """(number of tokens that a row generated, whether the limit cut it off).

    Args:
        tokens: the row, padded on the right; `pad` may be one of `ends`, the end-of-turn tokens.
        text: its text; a row with `</answer>` was done there, so that what follows is padding.

    Example: 5 6 E P, E an end of turn and P padding -> (3, False); 5 6 7 of at most 3 -> (3, True)
    """
    marks = ends | {pad}
    length = next((i for i, token in enumerate(tokens) if token in marks), len(tokens))
    if STOP in text:
        return length, False
    if length < len(tokens) and tokens[length] in ends:
        return length + 1, False
    return length, length >= max_new_tokens


def _end_tokens(model: Any) -> set[int]:
    """Token ids that end a turn."""
    ends = model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, list) else {ends} - {None}


def _shared_image_inputs(
    model: PreTrainedModel, processor: ProcessorMixin, batch: PreparedBatch
) -> dict[str, Any]:
    """Inputs of `generate` with each distinct image encoded once."""
    pixels = batch.inputs.to(model.device)
    grids = pixels["image_grid_thw"]
    encoder: Any = model
    encoded = encoder.get_image_features(pixels["pixel_values"], grids, return_dict=True)
    images = ImageFeatures(encoded.pooler_output, grids, batch.image_of_row)
    make_inputs = _shared_prefix_inputs if supports_shared_prefix(model) else _full_prompt_inputs
    return make_inputs(model, processor, batch.ids, images)


def _shared_prefix_inputs(
    model: PreTrainedModel, processor: ProcessorMixin, ids: list[list[int]], images: ImageFeatures
) -> dict[str, Any]:
    """Inputs of `generate` after each image's prefix was prefilled (see `shared_prefix`)."""
    image_of_row, lengths = images.image_of_row, prefix_lengths(ids, _image_token_id(processor))
    first_rows = [image_of_row.index(number) for number in range(len(images.grids))]
    prefixes = _left_padded(processor, [ids[row][: lengths[row]] for row in first_rows], model)
    suffix_ids = [row[length:] for row, length in zip(ids, lengths, strict=True)]
    suffixes = _left_padded(processor, suffix_ids, model)
    past, position = prefill_prefixes(model, prefixes, images.features, images.grids, image_of_row)
    # A repetition penalty counts the padding between prefix and suffix as generated text, so it is
    # filled with a token that the prompt contains anyway.
    suffixes["input_ids"] = torch.where(
        suffixes["attention_mask"] == 1,
        suffixes["input_ids"],
        prefixes["input_ids"][image_of_row, -1:],
    )
    whole = {
        name: torch.cat([prefixes[name][image_of_row], suffixes[name]], dim=1)
        for name in ("input_ids", "attention_mask")
    }
    return whole | {
        "position_ids": position + (suffixes["attention_mask"].cumsum(1) - 1).clamp(min=0),
        "past_key_values": past,
        "custom_generate": decode,
    }


def _full_prompt_inputs(
    model: PreTrainedModel, processor: ProcessorMixin, ids: list[list[int]], images: ImageFeatures
) -> dict[str, Any]:
    """Inputs of `generate` that prefill every row in full, with the image features precomputed."""
    _log_unshared_prefixes(model.config.model_type)
    features: Any = [images.features[number] for number in images.image_of_row]
    return _left_padded(processor, ids, model) | {
        "image_grid_thw": images.grids[images.image_of_row],
        "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features)},
    }


@cache  # once for each model type
def _log_unshared_prefixes(model_type: str) -> None:
    logger.info(
        "%s: the prompt prefix of an image is prefilled for each expression, not shared", model_type
    )


def _image_token_id(processor: Any) -> int:
    return processor.image_token_id


def _token_ids(
    processor: ProcessorMixin, batch: list[Prompt], pixels: Any, image_of_row: list[int]
) -> list[list[int]]:
    """Token ids of each row, with one placeholder for each image token."""
    placeholders = [processor.replace_image_token(pixels, image) for image in image_of_row]
    texts, _ = processor.get_text_with_replacements([p.text for p in batch], placeholders)
    return processor.tokenizer(texts)["input_ids"]


def _left_padded(
    processor: ProcessorMixin, ids: list[list[int]], model: PreTrainedModel
) -> dict[str, Tensor]:
    """Token ids, attention masks and token types, each (rows, tokens), on the model's device."""
    width, pad = max(map(len, ids)), processor.tokenizer.pad_token_id
    rows = [[pad] * (width - len(row)) + row for row in ids]
    masks = [[0] * (width - len(row)) + [1] * len(row) for row in ids]
    values = {
        "input_ids": rows,
        "attention_mask": masks,
        "mm_token_type_ids": processor.create_mm_token_type_ids(rows),
    }
    return {name: torch.tensor(value, device=model.device) for name, value in values.items()}
