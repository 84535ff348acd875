"""What a model is asked and what it generates, before parsing. Loads no torch."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from vlm_r1.data.images import image_digest
from vlm_r1.rec import prompts


@dataclass(frozen=True)
class Question:
    """The user turn and the image file it is about."""

    text: str
    image: Path


@dataclass(frozen=True)
class Completion:
    """The generated text; `input_size` is the (height, width) the model saw after the resize.

    Attributes:
        new_tokens: tokens generated, an end of turn included; None if they were not counted.
        cut_off: True if max_new_tokens ended it, rather than its end of turn or `</answer>`.
    """

    text: str
    input_size: tuple[int, int]
    new_tokens: int | None = None
    cut_off: bool | None = None


def question_about(template: str, expression: str, image: Path, detects: bool = False) -> Question:
    """The question for an expression, in the template of that name (`prompts.TEMPLATES`).

    Args:
        detects: the expression is a list of targets to detect.
    """
    question = prompts.question_for(expression, detects)
    return Question(prompts.fill_template(template, question), image)


def questions_digest(questions: list[Question]) -> str:
    """First 32 hex digits of the SHA-256 over each question's text and image bytes, in order.

    File names and true boxes are left out, since the model sees neither.

    Raises:
        DataError: an image is missing.
    """
    images = {file: image_digest(file) for file in dict.fromkeys(q.image for q in questions)}
    total = hashlib.sha256()
    for question in questions:
        total.update(json.dumps([question.text, images[question.image]]).encode() + b"\n")
    return total.hexdigest()[:32]
