"""Greedy answers of one checkpoint: batches by tokens, an image read once, early stop.

A row is done at its end of turn or at `</answer>`, a batch when all its rows are. Nothing after the
tag is ever read as an answer, so stopping there only saves time.
"""

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin
from transformers.generation import StopStringCriteria
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vlm_r1.data.images import open_image, read_image_size
from vlm_r1.errors import DataError
from vlm_r1.inference.batching import plan_batches
from vlm_r1.inference.questions import Completion, Question
from vlm_r1.inference.shared_prefix import can_share, decode, head_lengths, read_heads
from vlm_r1.inference.whole_prompt import count_tokens, encodes_apart, read_whole
from vlm_r1.models.loading import chat_text

logger = logging.getLogger(__name__)

STOP = "</answer>"


@dataclass(frozen=True)
class Prompt:
    """A question in the model's own chat format; `tokens` counts its text and its image."""

    text: str
    image: Path
    tokens: int


def ask_all(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    questions: list[Question],
    batch_tokens: int,
    max_new_tokens: int,
) -> list[Completion]:
    """Greedy completions, in the order of `questions`."""
    prompts = make_prompts(processor, questions)
    completions: dict[int, Completion] = {}
    for rows in batches_of(prompts, batch_tokens, max_new_tokens):
        batch = [prompts[row] for row in rows]
        completions.update(zip(rows, answer(model, processor, batch, max_new_tokens), strict=True))
    return [completions[row] for row in range(len(questions))]


def make_prompts(processor: ProcessorMixin, questions: list[Question]) -> list[Prompt]:
    """The questions as this checkpoint reads them; opens the headers of the images only.

    Raises:
        DataError: an image is missing, or a question holds the model's image token.
    """
    texts = [chat_text(processor, question.text) for question in questions]
    for question, text in zip(questions, texts, strict=True):
        _require_one_image(question, text.count(processor.image_token))
    if not encodes_apart(processor):
        asked = zip(texts, questions, strict=True)
        return [Prompt(t, q.image, count_tokens(processor, t, q.image)) for t, q in asked]
    words = [len(ids) - 1 for ids in processor.tokenizer(texts)["input_ids"]]
    sizes = {file: read_image_size(file) for file in dict.fromkeys(q.image for q in questions)}
    patches = {
        file: processor.image_processor.get_number_of_image_patches(*size, {})
        for file, size in sizes.items()
    }
    merged = processor.image_processor.merge_size**2
    return [
        Prompt(text, question.image, count + patches[question.image] // merged)
        for question, text, count in zip(questions, texts, words, strict=True)
    ]


def batches_of(prompts: list[Prompt], batch_tokens: int, max_new_tokens: int) -> list[list[int]]:
    """Row numbers in batches; they depend on the prompts and the budget alone."""
    tokens = [prompt.tokens for prompt in prompts]
    images = [prompt.image for prompt in prompts]
    return plan_batches(tokens, images, max_new_tokens, batch_tokens)


@dataclass(frozen=True)
class ImageFeatures:
    """The images of a batch as the model sees them, and which of them each row asks about."""

    features: list[Tensor]  # of each image: (its tokens, width)
    grids: Tensor  # (images, 3): patches in time, height, width
    which: list[int]  # (rows,)


@torch.inference_mode()
def answer(
    model: PreTrainedModel, processor: ProcessorMixin, batch: list[Prompt], max_new_tokens: int
) -> list[Completion]:
    """Completions of one batch, each with the (height, width) that the model saw."""
    if encodes_apart(processor):
        inputs, sizes = _read_once(model, processor, batch)
    else:
        texts, files = [p.text for p in batch], [p.image for p in batch]
        inputs, sizes = read_whole(model, processor, texts, files)
    output = model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=processor.tokenizer.pad_token_id,
        stopping_criteria=[StopStringCriteria(processor.tokenizer, [STOP])],
    )
    texts = processor.batch_decode(
        output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return [Completion(text, tuple(size)) for text, size in zip(texts, sizes, strict=True)]


def _read_once(
    model: PreTrainedModel, processor: ProcessorMixin, batch: list[Prompt]
) -> tuple[dict[str, Any], list[list[int]]]:
    """What `generate` goes on from: an image is opened, encoded and read once for its phrases."""
    number = {file: i for i, file in enumerate(dict.fromkeys(prompt.image for prompt in batch))}
    which = [number[prompt.image] for prompt in batch]
    seen = processor.image_processor([open_image(file) for file in number], return_tensors="pt")
    ids = _token_ids(processor, batch, [processor.replace_image_token(seen, i) for i in which])
    seen = seen.to(model.device)
    grids = seen["image_grid_thw"]
    encoded = model.get_image_features(seen["pixel_values"], grids, return_dict=True)
    begin = _read_together if can_share(model) else _read_apart
    inputs = begin(model, processor, ids, ImageFeatures(encoded.pooler_output, grids, which))
    return inputs, (grids[which, 1:] * processor.image_processor.patch_size).tolist()


def _read_together(
    model: PreTrainedModel, processor: ProcessorMixin, ids: list[list[int]], images: ImageFeatures
) -> dict[str, Any]:
    """What `generate` goes on from when each image has been read once (`decoding`)."""
    which, lengths = images.which, head_lengths(ids, processor.image_token_id)
    first = [which.index(number) for number in range(len(images.grids))]
    heads = _padded(processor, [ids[row][: lengths[row]] for row in first], model.device)
    tails = _padded(processor, [row[n:] for row, n in zip(ids, lengths, strict=True)], model.device)
    past, position = read_heads(model, heads, images.features, images.grids, which)
    # A repetition penalty counts what stands between tokens: let it be a token that is there.
    tails["input_ids"] = torch.where(
        tails["attention_mask"] == 1, tails["input_ids"], heads["input_ids"][which, -1:]
    )
    whole = {
        name: torch.cat([heads[name][which], tails[name]], dim=1)
        for name in ("input_ids", "attention_mask")
    }
    return whole | {
        "position_ids": position + (tails["attention_mask"].cumsum(1) - 1).clamp(min=0),
        "past_key_values": past,
        "custom_generate": decode,
    }


def _read_apart(
    model: PreTrainedModel, processor: ProcessorMixin, ids: list[list[int]], images: ImageFeatures
) -> dict[str, Any]:
    """What `generate` reads whole for each row; the features go in as `mm_encoder_outputs`."""
    _say_that_rows_read_apart(model.config.model_type)
    features = [images.features[number] for number in images.which]
    return _padded(processor, ids, model.device) | {
        "image_grid_thw": images.grids[images.which],
        "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features)},
    }


@cache
def _say_that_rows_read_apart(model_type: str) -> None:
    logger.info("%s reads an image anew for each phrase: its past cannot be shared", model_type)


def _token_ids(
    processor: ProcessorMixin, batch: list[Prompt], placeholders: list[str]
) -> list[list[int]]:
    """Token ids of each row, its image's place held open."""
    texts, _ = processor.get_text_with_replacements([p.text for p in batch], placeholders)
    return processor.tokenizer(texts)["input_ids"]


def _padded(
    processor: ProcessorMixin, ids: list[list[int]], device: torch.device
) -> dict[str, Tensor]:
    """Token ids, masks and token types, each (rows, tokens), padded left."""
    width, pad = max(map(len, ids)), processor.tokenizer.pad_token_id
    rows = [[pad] * (width - len(row)) + row for row in ids]
    masks = [[0] * (width - len(row)) + [1] * len(row) for row in ids]
    values = {
        "input_ids": rows,
        "attention_mask": masks,
        "mm_token_type_ids": processor.create_mm_token_type_ids(rows),
    }
    return {name: torch.tensor(value, device=device) for name, value in values.items()}


def _require_one_image(question: Question, found: int) -> None:
    if found != 1:
        raise DataError(
            got=f"{question.text!r} about {question.image}: {found - 1} image tokens in it",
            need="words alone",
            because="the model would look there for an image that does not exist",
            do="correct the expression",
        )
