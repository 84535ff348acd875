"""The agreement gate between engines: what counts as equal, how many rows must be."""

from pathlib import Path

import pytest

from vlm_r1.errors import ModelError
from vlm_r1.inference.agreement import ROWS, Agreement, require_agreement, spread
from vlm_r1.inference.questions import Completion, Question

QUESTIONS = [Question(f"thing {number}", Path(f"{number}.png")) for number in range(1000)]
SIZE = (56, 84)


def completions(*texts: str) -> list[Completion]:
    return [Completion(text, SIZE) for text in texts]


def gate(ours: list[Completion], theirs: list[Completion], dtype: str = "float32") -> Agreement:
    return require_agreement(QUESTIONS[: len(ours)], ours, theirs, dtype)


def test_questions_are_spread_over_all_eval_sets():
    chosen = spread(QUESTIONS)
    assert len(chosen) == ROWS == 200
    assert chosen == QUESTIONS[::5]
    assert spread(QUESTIONS[:7]) == QUESTIONS[:7]


@pytest.mark.parametrize(("different", "is_refused"), [(2, False), (3, True)])
def test_in_float32_99_percent_of_the_texts_must_be_equal(different, is_refused):
    ours = completions(*["[1, 2, 30, 40]"] * 200)
    theirs = completions(*["[1, 2, 30, 41]"] * different, *["[1, 2, 30, 40]"] * (200 - different))
    if not is_refused:
        assert gate(ours, theirs) == Agreement(200, 200 - different, 200)
        return
    with pytest.raises(ModelError, match="197 of 200 texts") as raised:
        gate(ours, theirs)
    assert "'thing 0' about 0.png: '[1, 2, 30, 40]' in transformers, '[1, 2, 30, 41]' in vLLM" in (
        raised.value.got
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_16_bits_90_percent_of_the_boxes_must_be_the_same(dtype):
    ours = completions(*["I see [0, 0, 10, 10]"] * 200)
    near, far = "There: [0, 0, 10, 9]", "[20, 20, 30, 30]"
    found = gate(ours, completions(*[far] * 20, *[near] * 180), dtype)
    assert found == Agreement(rows=200, texts=0, boxes=180)
    with pytest.raises(ModelError, match="179 of 200 boxes"):
        gate(ours, completions(*[far] * 21, *[near] * 179), dtype)


@pytest.mark.parametrize(
    ("ours", "theirs", "boxes"),
    [
        ("no box", "none here", 1),
        ("no box", "[0, 0, 10, 10]", 0),
        ("[0, 0, 10, 10]", "[0, 0, 10, 5]", 1),  # IoU 0.5
        ("[0, 0, 10, 10]", "[0, 0, 10, 4]", 0),
    ],
)
def test_the_same_box_is_a_hit_or_no_box_in_both(ours, theirs, boxes):
    try:
        found = gate(completions(ours), completions(theirs), "bfloat16").boxes
    except ModelError:
        found = 0
    assert found == boxes


def test_boxes_on_images_of_two_sizes_are_not_the_same():
    other = [Completion("[0, 0, 10, 10]", (28, 84))]
    with pytest.raises(ModelError, match="0 of 1 boxes"):
        gate(completions("[0, 0, 10, 10]"), other, "bfloat16")


def test_what_follows_the_answer_is_not_compared():
    ours, theirs = "<answer>[1, 2, 3, 4]</answer>\n", "<answer>[1, 2, 3, 4]</answer>"
    assert gate(completions(ours), completions(theirs)).texts == 1
