"""docs/training.md's table of VLM-R1's flags, held against what both profiles give TRL."""

import re

import pytest
import yaml

from tests.conftest import ROOT
from vlm_r1.config import load_params, profile_file
from vlm_r1.config.deepspeed import deepspeed_config
from vlm_r1.training.dry_run import resolved_arguments

PROFILES = ("vlm-r1-feb2025", "vlm-r1-mar2025")
# Arguments that differ from VLM-R1's flag; the table's footnotes say why.
DIFFERENT = {
    "output_dir",
    "report_to",
    "deepspeed",  # by name there, by content here; see below
    "max_steps",
    "lr_scheduler_type",
}
FLAGS_OF_RUN_GRPO_REC = {
    *("nproc_per_node", "nnodes", "node_rank", "master_addr", "master_port", "deepspeed"),
    *("output_dir", "model_name_or_path", "dataset_name", "image_root", "max_prompt_length"),
    *("num_generations", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("logging_steps", "bf16", "torch_dtype", "data_seed", "report_to", "run_name"),
    *("gradient_checkpointing", "attn_implementation", "num_train_epochs", "save_steps"),
    *("save_only_model", "use_vllm", "resume_from_checkpoint", "data_file_paths"),
    *("image_folders", "is_reward_customized_from_vlm_module", "task_type"),
    *("max_completion_length", "reward_funcs", "beta", "learning_rate", "use_peft"),
    *("lora_r", "lora_alpha", "lora_dropout", "lora_task_type", "freeze_vision_modules"),
    *("min_pixels", "max_pixels", "max_anyres_num", "val_split_ratio", "reward_method"),
}


def table() -> list[list[str]]:
    """Cells of every row: flags, February, newest, our parameter, TRL's argument."""
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    section = text.partition("## Every flag of VLM-R1")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" |") for line in section.splitlines() if line[:3] == "| `"]
    return [[cell.strip() for cell in (row + [""] * 5)[:5]] for row in rows]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture(scope="module")
def resolved():
    params = {name: load_params(profile_file(name, ROOT / "profiles")) for name in PROFILES}
    output = ROOT / "models/grpo"
    return params, {name: resolved_arguments(p, "grpo", output) for name, p in params.items()}


def test_every_flag_of_the_command_line_is_in_the_table():
    flags = {name.removeprefix("--") for row in table() for name in named(row[0])}
    assert flags >= FLAGS_OF_RUN_GRPO_REC


def test_every_parameter_in_the_table_exists(resolved):
    values = resolved[0]["vlm-r1-mar2025"].model_dump()
    dotted = [p for row in table() for p in named(row[3]) if re.fullmatch(r"[a-z]+\.[a-z_]+", p)]
    assert len(dotted) > 25
    for name in dotted:
        section, _, key = name.partition(".")
        assert key in values[section], name


def test_trl_is_given_what_vlm_r1_was_given(resolved):
    rows = [row for row in table() if named(row[4])]
    assert len(rows) >= 20
    for column, profile in enumerate(PROFILES, start=1):
        arguments = resolved[1][profile]
        for row in rows:
            (argument,) = named(row[4])
            assert argument in arguments, argument
            said = yaml.safe_load(row[column].replace("1.0e-6", "1.0e-06"))
            if argument in DIFFERENT or row[column] == "-":
                continue
            if argument == "per_device_train_batch_size":  # footnote: completions, not prompts
                said = 8
            assert arguments[argument] == said, (profile, row)


@pytest.mark.parametrize("profile", PROFILES)
def test_what_differs_is_what_the_footnotes_say(resolved, profile):
    params, arguments = resolved[0][profile], resolved[1][profile]
    assert arguments["output_dir"].endswith("models/grpo")
    assert arguments["deepspeed"] == deepspeed_config("zero3")
    assert (arguments["max_steps"], arguments["lr_scheduler_type"]) == (600, "constant")
    assert (params.launch.processes_per_node, params.launch.nodes) == (8, 1)
    assert (params.task.min_pixels, params.task.max_pixels) == (3136, 12_845_056)
    assert (params.task.dtype, params.task.attention) == ("bfloat16", "flash_attention_2")
    assert params.task.base_model == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert (params.train.lora, params.train.freeze_vision) == (None, False)
    assert arguments["loss_type"] == "grpo"
    assert params.sft.learning_rate == params.grpo.learning_rate == 1e-6


def test_the_lora_profile_has_vlm_r1s_values():
    params = load_params(profile_file("lora-1gpu", ROOT / "profiles"))
    lora = params.train.lora
    assert (lora.r, lora.alpha, lora.dropout, lora.targets) == (64, 128, 0.05, None)
    assert params.sft.learning_rate == params.grpo.learning_rate == 1e-5
    assert params.train.freeze_vision
    assert params.launch.processes == 1


def test_zero3_has_vlm_r1s_values():
    zero = deepspeed_config("zero3")["zero_optimization"]
    assert zero["overlap_comm"] is True
    assert zero["stage3_gather_16bit_weights_on_model_save"] is True
    assert {zero[f"stage3_max_{name}"] for name in ("live_parameters", "reuse_distance")} == {10**9}
    assert zero["sub_group_size"] == 10**9
    assert "optimizer" not in deepspeed_config("zero3")
    two = deepspeed_config("zero2")["zero_optimization"]
    assert two["allgather_bucket_size"] == two["reduce_bucket_size"] == 2 * 10**8
    assert two["overlap_comm"] is False
    offload = deepspeed_config("zero3_offload")["zero_optimization"]
    assert offload["offload_optimizer"] == offload["offload_param"]
    assert offload["offload_param"] == {"device": "cpu", "pin_memory": True}
