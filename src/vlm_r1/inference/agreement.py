"""The agreement gate: vLLM must answer as transformers does before a run may use it.

Both engines answer the same questions with the base. In float32 nearly all texts must be equal: on
the tiny base all are. In 16 bits two nearly equal logits may swap, after which a text goes another
way to, mostly, the same box; so there the boxes are compared. Another resize, template or position
encoding moves most boxes.
"""

from typing import Any, NamedTuple

from vlm_r1.errors import ModelError
from vlm_r1.inference.questions import Completion, Question
from vlm_r1.rec.boxes import iou
from vlm_r1.rec.contract import STOP
from vlm_r1.rec.parsing import Unparsed, parse_answer

ROWS = 200  # questions, spread over all eval sets
LEAST_TEXTS = 0.99  # float32: share of rows whose texts must be equal
LEAST_BOXES = 0.9  # 16 bits: share of rows whose boxes must be the same
SAME_BOX_IOU = 0.5  # as a hit


class Agreement(NamedTuple):
    """Of how many rows two engines have the same text, and the same box or both none."""

    rows: int
    texts: int
    boxes: int


def spread(questions: list[Question]) -> list[Question]:
    """`ROWS` questions at equal distances, or all if there are fewer."""
    count = min(ROWS, len(questions))
    return [questions[number * len(questions) // count] for number in range(count)]


def require_agreement(
    questions: list[Question],
    ours: list[Completion],
    theirs: list[Completion],
    dtype: str,
) -> Agreement:
    """Compare transformers' answers with vLLM's.

    Args:
        dtype: the task's; says whether texts or boxes must agree.

    Raises:
        ModelError: too many differ; names a row and shows both texts.
    """
    same_texts = [_text(a) == _text(b) for a, b in zip(ours, theirs, strict=True)]
    same_boxes = [_have_same_box(a, b) for a, b in zip(ours, theirs, strict=True)]
    found = Agreement(len(questions), sum(same_texts), sum(same_boxes))
    exact = dtype == "float32"
    what, same, least = (
        ("texts", same_texts, LEAST_TEXTS) if exact else ("boxes", same_boxes, LEAST_BOXES)
    )
    if sum(same) < least * len(same):
        row = same.index(False)
        raise ModelError(
            got=f"{sum(same)} of {len(same)} {what} of the base equal in transformers and vLLM. "
            f"{questions[row].text!r} about {questions[row].image}: "
            f"{ours[row].text!r} in transformers, {theirs[row].text!r} in vLLM",
            need=f"equal {what} in {least:.0%} of the rows",
            because="vLLM would evaluate another model than the one that was trained",
            do="evaluate.engine: transformers, or another version of vLLM",
        )
    return found


def agreement_meta(found: Agreement) -> dict[str, Any]:
    """As a result's metadata names it."""
    return {"rows": found.rows, "equal_texts": found.texts, "same_boxes": found.boxes}


def _text(completion: Completion) -> str:
    """The text to `</answer>`: vLLM ends there, transformers with the token it is in."""
    head, stop, _ = completion.text.partition(STOP)
    return head + stop


def _have_same_box(a: Completion, b: Completion) -> bool:
    """Whether both have a box, and nearly the same, or neither has one."""
    first, second = parse_answer(a.text), parse_answer(b.text)
    if isinstance(first, Unparsed) or isinstance(second, Unparsed):
        return isinstance(first, Unparsed) and isinstance(second, Unparsed)
    # IoU is the same in any coordinate space that both boxes are in.
    return a.input_size == b.input_size and bool(iou(first.box, second.box) >= SAME_BOX_IOU)
