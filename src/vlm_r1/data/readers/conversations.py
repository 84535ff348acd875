"""Box and expression in rows that are conversations: a question, and an answer with a box."""

import re
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, TypeAdapter
from pydantic_core import from_json

from vlm_r1.rec.objects import LabeledBox, objects_from
from vlm_r1.rec.parsing import says_none
from vlm_r1.rec.prompts import QUESTION, expression_in, targets_in

Box = Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)]

_BOX = TypeAdapter(Box)
_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
_IMAGE_TOKEN = "<image>"


def targets_of(question: str) -> str | None:
    """What a detection row asks for; None if the question is another one."""
    return targets_in(question.replace(_IMAGE_TOKEN, "").strip())


def bare_expression(problem: str) -> str:
    """The expression in a `problem` sentence; the inverse of `prompts.question_for`.

    Raises:
        ValueError: the sentence is not VLM-R1's question.
    """
    expression = expression_in(problem.replace(_IMAGE_TOKEN, "").strip())
    if expression is None:
        raise ValueError(f"the question is not the sentence {QUESTION!r} (found {problem[:60]!r})")
    return expression


def objects_in_answer(answer: Any) -> list[LabeledBox]:
    """The objects in the answer of a detection row: a JSON list, perhaps fenced; none for None.

    Raises:
        ValueError: it is no list of objects with `bbox_2d` and `label`.
    """
    if isinstance(answer, str):
        if says_none(answer):
            return []
        fenced = _FENCED.search(answer)
        answer = from_json((fenced[1] if fenced else answer).encode())
    return objects_from(answer)


def box_in_answer(answer: Any) -> list[float]:
    """The one box, xyxy, in an answer: four numbers, their JSON, or JSON with one `bbox_2d`.

    The JSON may stand in a Markdown code fence.

    Raises:
        ValueError: there is no box, or more than one.
    """
    if isinstance(answer, str):
        fenced = _FENCED.search(answer)
        answer = from_json((fenced[1] if fenced else answer).encode())
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        if len(answer) != 1:
            raise ValueError(f"{len(answer)} boxes in one answer, need one")
        answer = answer[0]
    if isinstance(answer, dict):
        answer = answer.get("bbox_2d")
    return _BOX.validate_python(answer, strict=True)
