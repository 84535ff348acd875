"""Rewards worked by hand."""

import pytest

from vlm_r1.rewards import format_reward, hard_iou_reward, iou_reward

SAME = ((100, 100), (100, 100))  # picture and model input of one size


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("[0, 0, 10, 10]", 0.5),
        ("<think>x</think><answer>[0, 0, 10, 5]</answer>", 1.0),
        ("[50, 50, 60, 60]", 0.0),
        ("nothing", 0.0),
    ],
)
def test_soft_iou_reward(completion, reward):
    assert iou_reward(completion, (0, 0, 10, 5), "input", *SAME) == pytest.approx(reward)


def test_the_reward_reads_the_answer_in_the_models_frame():
    answer = "[42, 28, 84, 56]"  # input pixels of a 90 x 60 picture seen as 84 x 56
    assert iou_reward(answer, (45, 30, 90, 60), "input", (60, 90), (56, 84)) == pytest.approx(1)
    assert iou_reward(answer, (45, 30, 90, 60), "original", (60, 90), (56, 84)) < 0.9


def test_the_hard_reward_pays_only_above_one_half():
    assert [hard_iou_reward(v) for v in (0.0, 0.5, 0.51, 1.0)] == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ('<think>left</think><answer>{"bbox_2d": [1, 2, 3, 4]}</answer>', 1.0),
        ('<think>a\nb</think>\n<answer>```json\n{"b": [1,2,3,4]}\n```</answer>', 1.0),
        ("<think>left</think><answer>[1, 2, 3, 4]</answer>", 0.0),  # no JSON object
        ('<answer>{"bbox_2d": [1, 2, 3, 4]}</answer>', 0.0),  # no thought
        ('<think>left</think>{"bbox_2d": [1, 2, 3, 4]}', 0.0),  # no answer tags
        ('<think>left</think><answer>{"bbox_2d": [1.5, 2, 3, 4]}</answer>', 0.0),  # floats
    ],
)
def test_format_reward(completion, reward):
    assert format_reward(completion) == reward


def test_endless_text_earns_no_format_reward_at_once():
    assert format_reward("<think></think><answer>{[1," * 100_000) == 0.0
