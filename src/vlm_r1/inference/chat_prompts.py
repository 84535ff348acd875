"""Questions in a checkpoint's chat format, and their batches; what every engine starts from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_r1.data.images import read_image_size
from vlm_r1.errors import DataError
from vlm_r1.inference.batching import plan_batches
from vlm_r1.inference.questions import Question
from vlm_r1.inference.whole_prompt import count_prompt_tokens, encodes_images_separately
from vlm_r1.models.loading import chat_text


@dataclass(frozen=True)
class Prompt:
    """A question in the model's chat format; `tokens` counts its text and its image."""

    text: str
    image: Path
    tokens: int


def make_prompts(processor: Any, questions: list[Question]) -> list[Prompt]:
    """The questions in the checkpoint's chat format; reads only the headers of the images.

    Raises:
        DataError: an image is missing, or a question contains the model's image token.
    """
    texts = [chat_text(processor, question.text) for question in questions]
    for question, text in zip(questions, texts, strict=True):
        _require_one_image(question, text.count(processor.image_token))
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


def _require_one_image(question: Question, found: int) -> None:
    if found != 1:
        raise DataError(
            got=f"{question.text!r} about {question.image}: {found - 1} image tokens in it",
            need="text without image tokens",
            because="the model would look there for an image that does not exist",
            do="correct the expression",
        )
