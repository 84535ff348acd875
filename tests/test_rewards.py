"""Rewards worked by hand, and what is refused of a reward of one's own."""

import math

import numpy as np
import pytest

from vlm_r1 import config
from vlm_r1.data.readers.vlm_r1 import REWARD_METHODS
from vlm_r1.errors import ConfigError
from vlm_r1.rec.reward_names import BOX_REWARDS
from vlm_r1.rec.rewards import REWARDS, only_named
from vlm_r1.rec.rewards.batch import Batch
from vlm_r1.rec.rewards.custom import load_function, require_rewards
from vlm_r1.rec.rewards.multi_box import average_precision

ANSWER = "[0, 0, 10, 10]"
R1 = '<think>left</think><answer>{"bbox_2d": [0, 0, 10, 10]}</answer>'
A, B, C = [0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]


def batch(
    texts, *truths, coordinate_space="original", image_size=(100, 100), input_size=(100, 100)
):
    """Completions, each with its true boxes."""
    n = len(texts)
    return Batch(texts, truths, coordinate_space, [image_size] * n, [input_size] * n)


def reward(name, text, *true):
    (value,) = REWARDS[name](batch([text], list(true)))
    return value


def test_params_knows_every_reward():
    assert set(config.training.REWARDS) == set(REWARDS)


def test_a_row_is_judged_by_the_accuracy_reward_that_it_names_and_by_those_of_form():
    named = ["", "iou", "map"]
    assert only_named("iou", [0.5, 0.5, 0.5], named) == [0.5, 0.5, None]
    assert only_named("format", [1.0, 1.0, None], named) == [1.0, 1.0, None]
    assert set(BOX_REWARDS) == set(REWARDS) - {"format", "length", "repetition"}
    assert set(REWARD_METHODS.values()) == {"", *BOX_REWARDS}  # what a row of VLM-R1's may name


@pytest.mark.parametrize(
    ("name", "true", "expected"),
    [
        ("iou", [0, 0, 10, 5], 0.5),
        ("iou", C, 0.0),
        ("iou_hard", [0, 0, 10, 5], 0.0),  # 0.5 is not above 0.5
        ("iou_hard", [0, 0, 10, 6], 1.0),
        ("giou", A, 1.0),
        ("giou", [10, 0, 20, 10], 0.0),  # beside each other: nothing shared, nothing empty
        ("giou", [30, 0, 40, 10], -0.5),  # 200 of 400 are empty
        ("giou", [0, 0, 5, 5], 0.25),  # 25 / 100, nothing empty
        ("center", [10, 0, 20, 10], 0.8),  # 1 - 10^2 / (20^2 + 10^2)
        ("center", [4, 4, 6, 6], 1.0),  # one center, whatever the size
        ("map", A, 1.0),
        ("odlength", A, 1.0),
    ],
)
def test_a_box_is_paid_for_where_it_lies(name, true, expected):
    assert reward(name, ANSWER, true) == pytest.approx(expected)
    assert reward(name, R1, true) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "least"),
    [("iou", 0), ("iou_hard", 0), ("giou", -1), ("center", 0), ("map", 0), ("odlength", 0)],
)
def test_an_answer_that_cannot_be_read_is_wrong(name, least):
    assert reward(name, "nothing", A) == reward(name, "<think>" + ANSWER, A) == least


@pytest.mark.parametrize("name", ["iou", "iou_hard", "giou", "center", "length"])
def test_where_there_is_no_one_true_box_nothing_is_judged(name):
    given = batch([ANSWER] * 4, [], [A, B], [[5, 5, 5, 9]], [A])
    values = REWARDS[name](given)
    assert values[:3] == [None] * 3
    assert values[3] == pytest.approx(REWARDS[name](batch([ANSWER], [A]))[0])
    assert reward("map", ANSWER) is None


def test_the_reward_reads_the_answer_in_the_models_coordinate_space():
    answer = "[42, 28, 84, 56]"  # input pixels of a 90 x 60 image seen as 84 x 56
    sizes = {"image_size": (60, 90), "input_size": (56, 84)}
    true = [[45, 30, 90, 60]]
    for name in ("iou", "map"):
        assert REWARDS[name](batch([answer], true, coordinate_space="input", **sizes)) == [
            pytest.approx(1)
        ]
        assert REWARDS[name](batch([answer], true, **sizes))[0] < 0.9


def test_a_batch_is_judged_row_by_row():
    given = batch([ANSWER, "?", ANSWER], [[0, 0, 10, 5]], [A], [B])
    assert REWARDS["iou"](given) == [0.5, 0.0, 0.0]
    assert given.parse_rate == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ('<think>left</think><answer>{"bbox_2d": [1, 2, 3, 4]}</answer>', 1.0),
        ('<think>a\nb</think>\n<answer>```json\n{"b": [1,2,3,4]}\n```</answer>', 1.0),
        ("<think>left</think><answer>[1, 2, 3, 4]</answer>", 0.0),  # no JSON object
        ('<answer>{"bbox_2d": [1, 2, 3, 4]}</answer>', 0.0),  # no thought
        ('<think>left</think>{"bbox_2d": [1, 2, 3, 4]}', 0.0),  # no answer tags
        ('<think>left</think><answer>{"bbox_2d": [1.5, 2, 3, 4]}</answer>', 0.0),  # floats
        ("<think></think><answer>{[1," * 100_000, 0.0),  # at once
    ],
)
def test_the_format_is_a_thought_and_a_tagged_json_box(completion, expected):
    assert reward("format", completion, A) == expected


@pytest.mark.parametrize(
    ("characters", "true", "expected"),
    [(512, A, 0.75), (512, B, -0.25), (1024, A, 0.5), (1024, B, -0.5), (5000, A, 0.5)],
)
def test_length_pays_short_answers_more_right_or_wrong(characters, true, expected):
    assert reward("length", ANSWER.ljust(characters), true) == pytest.approx(expected)


def test_length_falls_all_the_way():
    values = [reward("length", ANSWER.ljust(n), A) for n in range(20, 2000, 90)]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(0.5 + 0.25 * (1 + math.cos(math.pi * 20 / 1024)))


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("a b c d e f a b c d e f", -1 / 7),  # 7 runs of six words, 6 different
        ("a b c d e f g h", 0.0),
        ("a a a a a", 0.0),  # five words have no run of six
        ("a " * 105, -0.99),  # 100 runs, one different
        ("<answer>" + f"{A}, {A}, {B}, {B}" + "</answer>", -0.5),  # more than its words repeat
    ],
)
def test_repetition_is_the_share_that_was_said_before(completion, expected):
    assert reward("repetition", completion, A) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answered", "true", "expected"),
    [
        ([A, B], [A, B], 1.0),
        ([C, A], [A], 0.5),  # found second: precision 1/2
        ([A, C], [A], 1.0),  # what comes after the last hit costs nothing
        ([B, C, A], [A, B], (51 + 50 * 2 / 3) / 101),  # precision 1 up to recall 0.5, then 2/3
        ([A], [A, B], 51 / 101),  # recall ends at 0.5
        ([A, A], [A, B], 51 / 101),  # a true box is found once
        ([[0, 0, 10, 8]], [A], 0.7),  # IoU 0.8: found at 0.50 to 0.80, 7 of 10 thresholds
        ([[0, 0, 10, 6], A], [A], (3 * 1 + 7 * 0.5) / 10),  # takes A up to 0.60; then the second
        ([], [A], 0.0),
    ],
)
def test_average_precision_worked_by_hand(answered, true, expected):
    assert average_precision(np.array(answered), np.array(true)) == pytest.approx(expected)


def test_each_answer_takes_the_free_box_that_it_overlaps_most():
    true = np.array([[0, 0, 10, 10], [0, 0, 10, 8]])
    assert average_precision(np.array([[0, 0, 10, 8], [0, 0, 10, 10]]), true) == 1.0


@pytest.mark.parametrize(
    ("completion", "true", "expected"),
    [
        (f"<answer>{A}, {C}</answer>", [A], 0.5),  # AP 1, one box too many
        (f"<answer>{A}</answer>", [A, B], 51 / 101),  # a short list is punished by AP alone
        ("<answer>None</answer>", [], 1.0),
        (f"<answer>{A}</answer>", [], 0.0),
    ],
)
def test_odlength_pays_no_long_lists(completion, true, expected):
    assert reward("odlength", completion, *true) == pytest.approx(expected)


OWN = """
def words(prompts, completions, completion_ids, **columns):
    return [float(len(c[0]["content"].split())) for c in completions]

def narrow(completions): return [0.0]
def greedy(prompts, completions, completion_ids, image_file, **columns): return [0.0]
async def later(prompts, completions, completion_ids, **columns): return [0.0]
number = 3
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards/own.py").write_text(OWN)
    (tmp_path / "rewards/broken.py").write_text("import nothing_of_that_name")
    return tmp_path


def test_a_reward_of_ones_own_is_a_function_in_a_file(root):
    function = load_function("rewards/own.py:words", root)
    said = [[{"role": "assistant", "content": "two words"}]]
    assert function(prompts=[], completions=said, completion_ids=[], true_box=[A]) == [2.0]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("rewards/absent.py:words", "FileNotFoundError"),
        ("rewards/broken.py:words", "No module named 'nothing_of_that_name'"),
        ("no_such_package.module:words", "No module named 'no_such_package'"),
        ("rewards/own.py:absent", "no function 'absent' in it"),
        ("rewards/own.py:number", "no function 'number' in it"),
        ("rewards/own.py:narrow", r"narrow\(completions\): got an unexpected keyword argument"),
        ("rewards/own.py:greedy", r"missing a required argument: 'image_file'"),
        ("rewards/own.py:later", "an async function"),
    ],
)
def test_a_function_that_trl_cannot_call_is_refused(root, name, fault):
    with pytest.raises(ConfigError, match=f"(?s)got grpo.rewards: {name}: .*{fault}"):
        load_function(name, root)


@pytest.mark.parametrize(
    ("returned", "fault"),
    [
        (1.0, "it returned a float"),
        ([1.0], "it returned 1 values for 2 completions"),
        ([1.0, "0.5"], "it returned '0.5' for completion 1"),
        ([math.nan, 1.0], "it returned nan for completion 0"),
    ],
)
def test_what_is_no_list_of_numbers_is_refused(returned, fault):
    with pytest.raises(ConfigError, match=fault):
        require_rewards("own.py:words", returned, 2)


def test_numbers_of_any_kind_and_none_are_rewards():
    returned = require_rewards("own.py:words", [np.float32(0.5), 1, True, None], 4)
    assert returned == [0.5, 1.0, 1.0, None]
