"""Generation for one checkpoint: batches by tokens, shared image prefixes, early stopping.

A row is done at its end of turn or at `</answer>`, a batch when all its rows are. The parser reads
nothing after the tag, so stopping there saves time and changes no score.
"""

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin
from transformers.generation import LogitsProcessor, StopStringCriteria
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vlm_r1.data.images import open_image, read_image_size
from vlm_r1.errors import DataError
from vlm_r1.inference.batching import plan_batches
from vlm_r1.inference.questions import Completion, Question
from vlm_r1.inference.shared_prefix import (
    greedy_decode,
    prefill_prefixes,
    prefix_lengths,
    supports_shared_prefix,
)
from vlm_r1.inference.whole_prompt import (
    count_prompt_tokens,
    encodes_images_separately,
    whole_prompt_inputs,
)
from vlm_r1.models.loading import chat_text

logger = logging.getLogger(__name__)

STOP = "</answer>"


@dataclass(frozen=True)
class Prompt:
    """A question in the model's chat format; `tokens` counts its text and its image."""

    text: str
    image: Path
    tokens: int


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


def make_prompts(processor: ProcessorMixin, questions: list[Question]) -> list[Prompt]:
    """The questions in the checkpoint's chat format; reads only the headers of the images.

    Raises:
        DataError: an image is missing, or a question contains the model's image token.
    """
    texts = [chat_text(processor, question.text) for question in questions]
    for question, text in zip(questions, texts, strict=True):
        _require_one_image(question, text.count(_image_token(processor)))
    if not encodes_images_separately(processor):
        return [
            Prompt(text, q.image, count_prompt_tokens(processor, text, q.image))
            for text, q in zip(texts, questions, strict=True)
        ]
    text_tokens = [len(ids) - 1 for ids in processor.tokenizer(texts)["input_ids"]]
    sizes = {file: read_image_size(file) for file in dict.fromkeys(q.image for q in questions)}
    patches = {
        file: processor.image_processor.get_number_of_image_patches(*size, {})
        for file, size in sizes.items()
    }
    patches_per_token = processor.image_processor.merge_size**2
    return [
        Prompt(text, question.image, count + patches[question.image] // patches_per_token)
        for question, text, count in zip(questions, texts, text_tokens, strict=True)
    ]


def batch_prompts(prompts: list[Prompt], batch_tokens: int, max_new_tokens: int) -> list[list[int]]:
    """Row numbers of each batch; they depend on the prompts and the token budget alone."""
    tokens = [prompt.tokens for prompt in prompts]
    images = [prompt.image for prompt in prompts]
    return plan_batches(tokens, images, max_new_tokens, batch_tokens)


@torch.inference_mode()
def generate_batch(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    batch: list[Prompt],
    max_new_tokens: int,
    noise: LogitsProcessor | None = None,
) -> list[Completion]:
    """Completions of one batch, each with the (height, width) that the model saw.

    Args:
        noise: of `Sampling`, for sampled answers; None: greedy ones.
    """
    if encodes_images_separately(processor):
        inputs, sizes = _shared_image_inputs(model, processor, batch)
    else:
        texts, files = [p.text for p in batch], [p.image for p in batch]
        inputs, sizes = whole_prompt_inputs(model, processor, texts, files)
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
        for tokens, text, size in zip(new_tokens.tolist(), texts, sizes, strict=True)
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
    model: PreTrainedModel, processor: ProcessorMixin, batch: list[Prompt]
) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """Inputs of `generate` with each distinct image opened and encoded once, and input sizes."""
    index = {file: i for i, file in enumerate(dict.fromkeys(prompt.image for prompt in batch))}
    image_of_row = [index[prompt.image] for prompt in batch]
    pixels = processor.image_processor([open_image(file) for file in index], return_tensors="pt")
    ids = _token_ids(processor, batch, pixels, image_of_row)
    pixels = pixels.to(model.device)
    grids = pixels["image_grid_thw"]
    encoder: Any = model
    encoded = encoder.get_image_features(pixels["pixel_values"], grids, return_dict=True)
    images = ImageFeatures(encoded.pooler_output, grids, image_of_row)
    make_inputs = _shared_prefix_inputs if supports_shared_prefix(model) else _full_prompt_inputs
    patch_px = processor.image_processor.patch_size
    image_sizes = [(rows * patch_px, columns * patch_px) for _, rows, columns in grids.tolist()]
    return make_inputs(model, processor, ids, images), [image_sizes[i] for i in image_of_row]


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
        "custom_generate": greedy_decode,
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


def _image_token(processor: Any) -> str:
    return processor.image_token


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


def _require_one_image(question: Question, found: int) -> None:
    if found != 1:
        raise DataError(
            got=f"{question.text!r} about {question.image}: {found - 1} image tokens in it",
            need="text without image tokens",
            because="the model would look there for an image that does not exist",
            do="correct the expression",
        )
