"""GRPO's options: what TRL is told, which reference it keeps, and what is refused at the door."""

import json

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from tests.conftest import small_values, untracked_training
from vlm_r1.config import parse_params
from vlm_r1.data.records import read_records
from vlm_r1.errors import ConfigError
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.paths import records_file
from vlm_r1.training.arguments import prompts_read
from vlm_r1.training.callbacks import SaveAtSteps
from vlm_r1.training.grpo import grpo_arguments, grpo_rows
from vlm_r1.training.resume import read_log
from vlm_r1.training.reward_functions import RewardFunctions
from vlm_r1.training.sft import sft_arguments
from vlm_r1.training.trainers import ResumableGRPOTrainer


def params_with(**grpo):
    values = small_values()
    values["grpo"] |= {"learning_rate": 1e-3, "rewards": {"length": 1.0}, **grpo}
    return parse_params(values, "options")


def test_every_option_reaches_trl(tmp_path):
    options = {
        "num_generations": 2,
        "num_iterations": 3,
        "steps_per_generation": 2,
        "epsilon": 0.1,
        "epsilon_high": 0.28,
        "beta": 0.01,
        "loss_type": "dr_grpo",
        "importance_sampling_level": "sequence",
        "temperature": 0.9,
        "top_p": 0.95,
        "top_k": 50,
        "mask_truncated_completions": True,
        "scale_rewards": "none",
        "entropy_coef": 0.01,
    }
    params = params_with(micro_batch=2, max_completion_tokens=9, **options)
    arguments = grpo_arguments(params, tmp_path)
    assert {name: getattr(arguments, name) for name in options} == options
    assert arguments.max_completion_length == 9
    assert not arguments.use_vllm


def trainer_of(root, folder, params, **more):
    """A trainer as training/grpo.py builds it."""
    records = read_records(root / records_file("studio_train")).head(4)
    images, samples = root / params.datasets["studio_train"].images, folder / "samples"
    rewards = RewardFunctions(params.grpo, params.task.coordinate_space, samples, root)
    return ResumableGRPOTrainer(
        params.task,
        params=params,
        model=load_model(root / "models/base", params.task),
        reward_funcs=rewards.as_list(),
        args=grpo_arguments(params, folder),
        train_dataset=grpo_rows(records, images, root, params.task),
        processing_class=load_processor(root / "models/base", params.task),
        callbacks=[SaveAtSteps(params.train.step_grid)],
        **more,
    )


def test_with_kl_the_reference_is_a_full_copy_that_stays_the_base(small_root, tmp_path):
    trainer = trainer_of(small_root, tmp_path, params_with(beta=0.04))
    trainer.train()
    base = load_model(small_root / "models/base", params_with().task).state_dict()
    kept, moved = trainer.ref_model.state_dict(), trainer.model.state_dict()
    assert all(torch.equal(kept[name], base[name]) for name in base)
    assert any(not torch.equal(moved[name], base[name]) for name in base)
    kl = [row["kl"] for row in trainer.state.log_history if "kl" in row]
    assert kl[0] == pytest.approx(0, abs=1e-6)
    assert kl[1] > 1e-6


def test_without_kl_there_is_no_reference(small_root, tmp_path):
    trainer = trainer_of(small_root, tmp_path, params_with(beta=0.0))
    trainer.train()
    assert trainer.ref_model is None
    assert not any("kl" in row for row in trainer.state.log_history)


ADAPTER = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def test_with_an_adapter_the_reference_is_the_model_without_it(small_root, tmp_path):
    trainer = trainer_of(small_root, tmp_path, params_with(beta=0.04), peft_config=ADAPTER)
    assert trainer.ref_model is None
    trainer.train()
    kl = [row["kl"] for row in trainer.state.log_history if "kl" in row]
    assert kl[0] == pytest.approx(0, abs=1e-6)
    assert kl[1] > 0


def test_an_adapter_goes_on_from_a_checkpoint_to_the_same_weights(small_root, tmp_path):
    whole, resumed = (
        trainer_of(small_root, tmp_path / name, params_with(beta=0.04), peft_config=ADAPTER)
        for name in ("whole", "resumed")
    )
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-1"))
    ours, theirs = (
        load_file(tmp_path / f"{name}/checkpoint-2/adapter_model.safetensors")
        for name in ("resumed", "whole")
    )
    assert theirs
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": "dr_grpo"},
        {"loss_type": "dapo", "epsilon_high": 0.28},
        {"loss_type": "bnpo", "beta": 0.0},
        {"importance_sampling_level": "sequence"},
        {"micro_batch": 4, "steps_per_generation": 4},  # a rollout lasts two steps
        {"num_iterations": 2},
    ],
    ids=str,
)
def test_every_choice_trains(small_root, tmp_path, options):
    root = link_project(small_root, tmp_path)
    untracked_training(params_with(**options), root, "grpo")
    line = read_log(root / "models/grpo/training_log.jsonl")[-1]
    assert line["step"] == 2
    assert torch.isfinite(torch.tensor(line["loss"]))
    moved = load_file(root / "models/grpo/checkpoint-2/model.safetensors")
    base = load_file(root / "models/base/model.safetensors")
    assert any(not torch.equal(moved[name], base[name]) for name in base)
    cost = json.loads((root / "models/grpo/cost.json").read_text())
    assert cost["prompts"] == (2 if "num_iterations" in options else 4)


def link_project(small_root, folder):
    (folder / "data").symlink_to(small_root / "data")
    (folder / "models").mkdir()
    (folder / "models/base").symlink_to(small_root / "models/base")
    return folder


def test_prompts_that_are_read_are_those_of_whole_rollouts(tmp_path):
    """Two steps of two prompts, four completions each."""
    assert prompts_read(sft_arguments(params_with(), tmp_path)) == 4
    for options, prompts in [
        ({}, 4),
        ({"num_iterations": 2}, 2),
        ({"micro_batch": 4, "steps_per_generation": 1}, 4),  # two rollouts a step
        ({"micro_batch": 4, "steps_per_generation": 3}, 6),  # the second one is begun
    ]:
        assert prompts_read(grpo_arguments(params_with(**options), tmp_path)) == prompts, options


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"micro_batch": 2, "steps_per_generation": 3}, "= 6 completions, grpo.num_generations 4"),
        ({"rollouts": "vllm_colocate"}, "TRL #6294"),
        ({"rollouts": "vllm_server"}, r"vllm<=.* for trl \(not installed\)"),
    ],
)
def test_what_trl_would_refuse_or_spoil_is_refused_at_the_door(tmp_path, options, fault):
    with pytest.raises(ConfigError, match=fault):
        grpo_arguments(params_with(**options), tmp_path)


@pytest.mark.parametrize(
    "options", [{"loss_type": "ppo"}, {"num_iterations": 0}, {"epsilon_high": 0.0}]
)
def test_values_that_mean_nothing_are_refused_with_params(options):
    with pytest.raises(ConfigError, match=rf"grpo\.{next(iter(options))}"):
        params_with(**options)


def test_by_default_all_tokens_are_sampled_from_and_8_bit_adam_is_off(tmp_path):
    arguments = grpo_arguments(params_with(), tmp_path)
    assert (arguments.top_k, arguments.top_p, arguments.entropy_coef) == (0, 1.0, 0.0)
    assert (arguments.optim, arguments.log_multimodal) == ("adamw_torch_fused", False)
    values = small_values()
    values["train"]["optimizer"] = "adamw_8bit"
    assert sft_arguments(parse_params(values, "8 bits"), tmp_path).optim == "adamw_bnb_8bit"
