"""Greedy answers of one checkpoint: batches by tokens, one encoding a picture, early stop.

A row is done at its end of turn or at `</answer>`, a batch when all its rows are. Nothing after the
tag is ever read as an answer, so stopping there only saves time.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BatchEncoding, PreTrainedModel, ProcessorMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling

from vlm_r1.data.images import open_picture, picture_size
from vlm_r1.errors import DataError
from vlm_r1.evaluation.batches import plan_batches
from vlm_r1.evaluation.questions import Completion, Question
from vlm_r1.models.chat import chat_text

STOP = "</answer>"


@dataclass(frozen=True)
class Prompt:
    """A question in the model's own chat format; `tokens` counts its text and its picture."""

    text: str
    picture: Path
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
    """The questions as this checkpoint reads them; opens the headers of the pictures only.

    Raises:
        DataError: a picture is missing, or a question holds the model's picture token.
    """
    texts = [chat_text(processor, question.text) for question in questions]
    for question, text in zip(questions, texts, strict=True):
        _require_one_picture(question, text.count(processor.image_token))
    words = [len(ids) - 1 for ids in processor.tokenizer(texts)["input_ids"]]
    sizes = {file: picture_size(file) for file in dict.fromkeys(q.picture for q in questions)}
    patches = {
        file: processor.image_processor.get_number_of_image_patches(*size, {})
        for file, size in sizes.items()
    }
    merged = processor.image_processor.merge_size**2
    return [
        Prompt(text, question.picture, count + patches[question.picture] // merged)
        for question, text, count in zip(questions, texts, words, strict=True)
    ]


def batches_of(prompts: list[Prompt], batch_tokens: int, max_new_tokens: int) -> list[list[int]]:
    """Row numbers in batches; they depend on the prompts and the budget alone."""
    tokens = [prompt.tokens for prompt in prompts]
    pictures = [prompt.picture for prompt in prompts]
    return plan_batches(tokens, pictures, max_new_tokens, batch_tokens)


@torch.inference_mode()
def answer(
    model: PreTrainedModel, processor: ProcessorMixin, batch: list[Prompt], max_new_tokens: int
) -> list[Completion]:
    """Completions of one batch; each picture is opened and encoded once, however many phrases.

    The features go to the language model through `generate`'s `mm_encoder_outputs`
    (transformers, generation/utils.py), one entry a row.
    """
    number = {file: i for i, file in enumerate(dict.fromkeys(prompt.picture for prompt in batch))}
    which = [number[prompt.picture] for prompt in batch]
    seen = processor.image_processor([open_picture(file) for file in number], return_tensors="pt")
    inputs = _text_inputs(processor, batch, [processor.replace_image_token(seen, i) for i in which])
    inputs, seen = inputs.to(model.device), seen.to(model.device)
    features = model.get_image_features(
        seen["pixel_values"], seen["image_grid_thw"], return_dict=True
    ).pooler_output
    output = model.generate(
        **inputs,
        image_grid_thw=seen["image_grid_thw"][which],
        mm_encoder_outputs={
            "image": BaseModelOutputWithPooling(pooler_output=[features[i] for i in which])
        },
        max_new_tokens=max_new_tokens,
        do_sample=False,
        stop_strings=[STOP],
        tokenizer=processor.tokenizer,
    )
    texts = processor.batch_decode(
        output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    sizes = (seen["image_grid_thw"][which, 1:] * processor.image_processor.patch_size).tolist()
    return [Completion(text, tuple(size)) for text, size in zip(texts, sizes, strict=True)]


def _text_inputs(
    processor: ProcessorMixin, batch: list[Prompt], placeholders: list[str]
) -> BatchEncoding:
    """Token ids and masks (rows, tokens), padded left, each picture's place held open."""
    texts, _ = processor.get_text_with_replacements([p.text for p in batch], placeholders)
    inputs = processor.tokenizer(texts, padding=True, return_tensors="pt")
    kinds = processor.create_mm_token_type_ids(inputs["input_ids"])
    inputs["mm_token_type_ids"] = torch.tensor(kinds)
    return inputs


def _require_one_picture(question: Question, found: int) -> None:
    if found != 1:
        raise DataError(
            got=f"{question.text!r} about {question.picture}: {found - 1} picture tokens in it",
            need="words alone",
            because="the model would look there for a picture that does not exist",
            do="correct the expression",
        )
