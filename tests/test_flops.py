"""The formula of FLOPs, held against torch's own counter on the committed tiny model."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import ROOT, small_values, untracked_training
from tests.families import write_tiny_qwen3_vl
from vlm_r1.config import parse_params
from vlm_r1.models.flops import (
    Load,
    Loads,
    Part,
    Parts,
    forward_flops,
    image_load,
    training_flops,
    written_load,
)
from vlm_r1.preflight.footprint import Footprint, Workload
from vlm_r1.preflight.plan import plan_work
from vlm_r1.training import shared_prompts


def product_flops(_, a: torch.Size, b: torch.Size, **kwargs) -> int:
    """FLOPs of (n, k) x (k, m)."""
    return 2 * a[0] * a[1] * b[1]


IN_PLACE = {torch.ops.aten.addmm_: product_flops}  # which torch's counter leaves out
NOTHING = Part(weights=0, trained=0)


def parts(language: Part) -> Parts:
    return Parts(NOTHING, NOTHING, NOTHING, language, NOTHING)


def counted_values() -> dict:
    """Eager attention: torch's counter has no formula for sdpa on a CPU."""
    values = small_values()
    values["task"]["attention"] = "eager"
    return values


def test_a_pass_is_counted_by_hand():
    """100 weights, attention 8 wide; 5 rows that all attend to each other: 25 pairs."""
    language = Part(weights=100, trained=100, width=8, passed=100, again=75)
    loads = Loads(language=Load(5, 25))
    assert forward_flops(parts(language), loads) == 2 * 100 * 5 + 4 * 8 * 25  # 1800
    assert training_flops(parts(language), loads, False) == 3 * 1800
    assert training_flops(parts(language), loads, True) == 4 * 1800 - 2 * 25 * 5


def test_frozen_weights_get_no_gradient_and_a_frozen_tower_no_backward_pass():
    loads = Loads(language=Load(5))
    frozen = Part(weights=100, trained=0, passed=100)
    assert training_flops(parts(frozen), loads, False) == 1000 + 1000
    unreached = Part(weights=100, trained=0, again=75)
    assert training_flops(parts(unreached), loads, True) == 1000


def test_a_completion_is_written_token_by_token_after_its_prompt():
    assert written_load(10, 3) == Load(12, 100 + 11 + 12)
    assert written_load(10, 1) == Load(10, 100)


class Config:
    class vision_config:
        depth, window_size, patch_size, fullatt_block_indexes = 4, 28, 14, (3,)


def test_patches_attend_within_windows_in_three_of_four_blocks():
    """3 x 2 patches in windows of 2 x 2: one of 4 and one of 2 patches, 16 + 4 pairs; 36 in all."""
    assert image_load(Config, [(3, 2)]) == Load(6, 0.25 * 36 + 0.75 * 20)


@pytest.fixture
def committed(small_root, tmp_path):
    """A project with small data and the committed base."""
    (tmp_path / "data").symlink_to(small_root / "data")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(ROOT / "models/base")
    return tmp_path


LORA = {"r": 8, "alpha": 8, "dropout": 0.0, "targets": None}


@pytest.mark.parametrize(
    ("method", "train", "grpo"),
    [
        ("sft", {}, {}),
        ("sft", {"freeze_vision": True}, {}),
        ("sft", {"gradient_checkpointing": True}, {}),
        ("sft", {"gradient_checkpointing": True, "freeze_vision": True}, {}),
        ("sft", {"lora": LORA, "freeze_vision": True, "freeze_projector": True}, {}),
        ("grpo", {}, {}),
        ("grpo", {}, {"beta": 0.0, "num_iterations": 2}),
        ("grpo", {"gradient_checkpointing": True}, {"micro_batch": 4}),
        ("grpo", {"lora": LORA}, {}),
        ("grpo", {}, {"share_prompts": False, "num_iterations": 2}),
    ],
)
def test_a_training_counts_what_torchs_counter_counts(committed, method, train, grpo, monkeypatch):
    """Rollouts, reference, old policy, forward and backward of two steps.

    Not the comparison before them, which is no part of the cost.

    With adapters 2 percent: the input of the first of four layers gets no gradient, and the
    reference runs without them; the formula leaves both out.
    """
    values = counted_values()
    values["train"] |= train
    values["grpo"] |= grpo
    params = parse_params(values, "counted")
    monkeypatch.setattr(shared_prompts, "require_equal_numbers", lambda *_: None)
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        untracked_training(params, committed, method)
    cost = json.loads((committed / f"models/{method}/cost.json").read_text())
    assert cost["flops"] == pytest.approx(
        counter.get_total_flops(), rel=0.02 if "lora" in train else 1e-4
    )
    assert [one["step"] for one in cost["checkpoints"]] == [1, 2]
    first, last = (one["flops"] for one in cost["checkpoints"])
    assert 0.3 < first / last < 0.7
    assert last == cost["flops"]


def test_another_familys_training_counts_the_same(small_root, tmp_path):
    (tmp_path / "data").symlink_to(small_root / "data")
    write_tiny_qwen3_vl(tmp_path / "models/base")
    values = counted_values()
    values["task"]["coordinate_space"] = "thousand"
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        untracked_training(parse_params(values, "qwen3"), tmp_path, "sft")
    cost = json.loads((tmp_path / "models/sft/cost.json").read_text())
    assert cost["flops"] == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("share", [True, False])
def test_a_plan_counts_what_its_training_does(committed, share):
    """A plan knows neither the lengths of texts nor when answers end."""
    values = small_values()
    values["grpo"]["share_prompts"] = share
    params = parse_params(values, "planned")
    for method in ("sft", "grpo"):
        untracked_training(params, committed, method)
        cost = json.loads((committed / f"models/{method}/cost.json").read_text())
        footprint = Footprint(params, committed)
        seen = cost["tokens"] / cost["completions"]
        written = 8 if method == "grpo" else 38
        work = Workload(getattr(params, method).micro_batch, round(seen), 36, written)
        rows = cost["completions"] // 2
        planned = plan_work(params, method, footprint, rows, work).flops_total
        assert planned == pytest.approx(cost["flops"], rel=0.05)
