"""Groups of equal rewards are replaced by groups of further prompts."""

import json
import shutil

import datasets
import pytest
import torch

from tests.conftest import small_values
from tests.training_jobs import job_of, train, weights
from vlm_r1.config import parse_params
from vlm_r1.errors import ConfigError
from vlm_r1.files import part_of
from vlm_r1.rec.rewards import REWARDS
from vlm_r1.training.dynamic_sampling import FurtherPrompts, equal_groups, refill
from vlm_r1.training.grpo import grpo_arguments
from vlm_r1.training.resume import read_log

NAN = float("nan")


def params_with(processes=1, **grpo):
    values = small_values()
    values["grpo"] |= {"learning_rate": 1e-3, "max_resamples": 2, "rewards": {"iou": 1.0}, **grpo}
    values["launch"]["processes_per_node"] = processes
    return parse_params(values, "test")


def test_a_group_is_equal_by_the_weighted_sum_of_its_rewards():
    """Groups of two: equal sums of unequal rewards, unequal sums, one judged by one reward."""
    rewards = torch.tensor([[1, 0], [0, 0.5], [1, 0], [1, 1], [NAN, 1], [0, 1]])
    assert equal_groups(rewards, torch.tensor([1.0, 2.0]), 2).tolist() == [True, False, True]


def test_every_process_takes_its_share_of_the_further_prompts():
    rows = datasets.Dataset.from_dict({"prompt": list("abcdefg")})
    taken = []
    for process in (0, 1):
        further = FurtherPrompts(rows)
        taken.append([[row["prompt"] for row in further.take(n, process, 2)] for n in (2, 1, 1)])
        assert further.read == 6
    assert taken == [[["a", "b"], ["e"], []], [["c", "d"], ["f"], []]]


def rollout(first, prompt, completion, patches):
    """Two rows of one prompt, numbered from `first`; `patches` are the image's."""
    width = prompt + completion
    return {
        "prompt_ids": torch.full((2, prompt), first),
        "completion_ids": torch.full((2, completion), first),
        "mm_token_type_ids": torch.full((2, width), first),
        "advantages": torch.tensor([first, first + 1]),
        "pixel_values": torch.full((2 * patches, 3), float(first)),
        "image_grid_thw": torch.tensor([[1, 1, patches]] * 2),
        "num_images": [1, 1],
        "num_items_in_batch": torch.tensor(4),
    }


def test_rows_are_replaced_whatever_their_lengths_and_images():
    """The second row of a rollout by the first of another: longer prompt, shorter completion."""
    merged = refill(rollout(1, 2, 3, 2), rollout(5, 3, 1, 4), torch.tensor([1]), torch.tensor([0]))
    assert merged["prompt_ids"].tolist() == [[0, 1, 1], [5, 5, 5]]
    assert merged["completion_ids"].tolist() == [[1, 1, 1], [5, 0, 0]]
    assert merged["mm_token_type_ids"].tolist() == [[0, 1, 1, 1, 1, 1], [5, 5, 5, 5, 0, 0]]
    assert merged["advantages"].tolist() == [1, 5]
    assert merged["pixel_values"][:, 0].tolist() == [1, 1, 5, 5, 5, 5]
    assert merged["image_grid_thw"].tolist() == [[1, 1, 2], [1, 1, 4]]


@pytest.fixture
def blind_to_one_box_a_step(monkeypatch):
    """A reward that tells completions apart, but for one prompt of each step's two."""

    def reward(batch):
        sides = [box[0][2] - box[0][0] for box in batch.true_boxes]
        pairs = zip(batch.texts, sides, strict=True)
        return [0.0 if side in (25, 28) else len(text) % 5 / 5 for text, side in pairs]

    monkeypatch.setitem(REWARDS, "iou", reward)


def test_training_asks_further_prompts_counts_them_and_goes_on_after_a_kill(
    small_root, tmp_path, blind_to_one_box_a_step
):
    whole, killed = tmp_path / "whole/grpo", tmp_path / "killed/grpo"
    params = params_with()
    train(job_of("grpo", params, small_root, whole))
    cost = json.loads((whole / "cost.json").read_text())
    first, last = (checkpoint["further_prompts"] for checkpoint in cost["checkpoints"])
    assert (first, last) == (1, 2)
    assert cost["prompts"] == 4 + 2
    assert cost["completions"] == 4 * cost["prompts"]
    tables = [json.loads(file.read_text()) for file in sorted(whole.glob("samples/*.json"))]
    assert [len(table) for table in tables] == [8 + 4, 8 + 4]
    lines = [line for line in read_log(whole / "training_log.jsonl") if "loss" in line]
    assert lines[0]["groups/equal_after_resampling"] == 0
    assert lines[0]["frac_reward_zero_std"] > 0
    shutil.copytree(whole, part_of(killed))
    shutil.rmtree(part_of(killed) / "checkpoint-2")
    train(job_of("grpo", params, small_root, killed))
    again = json.loads((killed / "cost.json").read_text())
    assert again["prompts"] == cost["prompts"]
    one, two = weights(whole / "checkpoint-2"), weights(killed / "checkpoint-2")
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"scale_rewards": "batch"}, "another deviation"),
        ({"processes": 4, "micro_batch": 2}, "whole groups of 4 on each"),
    ],
)
def test_groups_that_cannot_be_replaced_are_refused(tmp_path, options, fault):
    processes = options.get("processes", 1)
    with pytest.raises(ConfigError, match=fault):
        grpo_arguments(params_with(**options), tmp_path, processes)
