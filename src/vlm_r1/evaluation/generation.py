"""Greedy answers of one checkpoint to many questions: batched, left-padded, shortest first."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, ProcessorMixin

from vlm_r1 import prompts
from vlm_r1.data.images import open_picture
from vlm_r1.models.chat import chat_text

PATCH_PX = 14  # of the processor's grid, before merging


@dataclass(frozen=True)
class Question:
    """What a model is asked: the user turn and the picture's file."""

    text: str
    picture: Path


@dataclass(frozen=True)
class Completion:
    """What it answered, and what it saw: `input_size` is (height, width) after the resize."""

    text: str
    input_size: tuple[int, int]


def ask_all(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    questions: list[Question],
    batch_size: int,
    max_new_tokens: int,
) -> list[Completion]:
    """Greedy completions, in the order of `questions`."""
    model.eval()
    answers: dict[int, Completion] = {}
    for rows in _batches(questions, batch_size):
        batch = [questions[row] for row in rows]
        for row, answer in zip(rows, _answer(model, processor, batch, max_new_tokens), strict=True):
            answers[row] = answer
    return [answers[row] for row in range(len(questions))]


def _batches(questions: list[Question], batch_size: int) -> Iterator[list[int]]:
    """Row numbers in batches of alike length, so that little padding is computed."""
    by_length = sorted(range(len(questions)), key=lambda row: len(questions[row].text))
    for start in range(0, len(by_length), batch_size):
        yield by_length[start : start + batch_size]


@torch.inference_mode()
def _answer(
    model: PreTrainedModel, processor: ProcessorMixin, batch: list[Question], max_new_tokens: int
) -> list[Completion]:
    inputs = processor(
        text=[chat_text(processor, question.text) for question in batch],
        images=[open_picture(question.picture) for question in batch],
        padding=True,
        return_tensors="pt",
    ).to(model.device)
    output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    texts = processor.batch_decode(
        output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    sizes = (inputs["image_grid_thw"][:, 1:] * PATCH_PX).tolist()
    return [Completion(text, tuple(size)) for text, size in zip(texts, sizes, strict=True)]


def question_about(template: str, expression: str, picture: Path) -> Question:
    """The question for a bare expression, asked with a template of `prompts.TEMPLATES`."""
    return Question(prompts.ask(template, prompts.question_for(expression)), picture)
