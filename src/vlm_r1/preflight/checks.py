"""Combinations that train wrongly or not at all, refused at the door with what to do instead.

Here is what params, packages and devices tell; models/probes.py measures what becomes of a real
sample. `vlm-r1 doctor` runs every check, training the quick ones.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import torch
from packaging.version import Version

from vlm_r1.config import Params, Task
from vlm_r1.config.training import Grpo, Launch
from vlm_r1.errors import ConfigError, InputError
from vlm_r1.models.families import Family, family_of


@dataclass(frozen=True)
class Finding:
    """What a check saw, or why it refuses."""

    check: str
    seen: str
    fault: InputError | None = None


Check = Callable[[], str]  # says what it saw, raises InputError


def examine(checks: dict[str, Check]) -> list[Finding]:
    """Run every check, also after one that refuses."""
    found = []
    for name, check in checks.items():
        try:
            found.append(Finding(name, check()))
        except InputError as fault:
            found.append(Finding(name, fault.got, fault))
    return found


def require(checks: dict[str, Check]) -> None:
    """Run the checks up to the first that refuses.

    Raises:
        ConfigError, ModelError: what is wrong and what to do.
    """
    for check in checks.values():
        check()


def machine_checks(params: Params) -> dict[str, Check]:
    """What params, packages and devices tell."""
    return {
        "devices": lambda: check_devices(params.launch),
        "attention": lambda: check_attention(params.task, params.launch),
        "precision": lambda: check_precision(params),
        "liger": lambda: check_liger(params),
    }


def family_checks(params: Params, model_type: str) -> dict[str, Check]:
    """What is known of a model of this type."""
    return {
        "versions": lambda: check_versions(model_type),
        "coordinate_space": lambda: check_coordinate_space(params.task, family_of(model_type)),
    }


def check_versions(model_type: str) -> str:
    """transformers 5.4.0 to 5.5.3 give still images of Qwen2.5-VL wrong rotary positions.

    Sources: huggingface/transformers #45325, #45330; huggingface/lerobot #3648.
    """
    found = metadata.version("transformers")
    if model_type == "qwen2_5_vl" and Version("5.4.0") <= Version(found) < Version("5.5.4"):
        raise ConfigError(
            got=f"transformers {found} with Qwen2.5-VL",
            need="transformers below 5.4.0 or from 5.5.4 on",
            because="those in between give still images wrong rotary positions",
            do="pip install 'transformers>=5.5.4'",
        )
    return f"transformers {found}, torch {metadata.version('torch')}"


def check_devices(launch: Launch) -> str:
    """As many GPUs as this node shall run processes."""
    found = torch.cuda.device_count()
    if launch.device == "cuda" and found < launch.processes_per_node:
        raise ConfigError(
            got=f"{found} CUDA devices",
            need=f"{launch.processes_per_node}, launch.processes_per_node",
            because="launch.device is cuda, and every process has a GPU of its own",
            do="lower launch.processes_per_node, or set launch.device: cpu for a trial",
        )
    return f"{launch.processes} x {launch.device}, {found} CUDA devices here"


def check_attention(task: Task, launch: Launch) -> str:
    """flash_attention_2 wants a GPU, its package, and 16-bit numbers."""
    if task.attention == "flash_attention_2":
        lacks = [
            name
            for name, there in (
                ("a CUDA device", launch.device != "cpu" and torch.cuda.is_available()),
                ("the package flash-attn", importlib.util.find_spec("flash_attn") is not None),
                ("a 16-bit task.dtype", task.dtype != "float32"),
            )
            if not there
        ]
        if lacks:
            raise ConfigError(
                got=f"task.attention flash_attention_2 without {' and '.join(lacks)}",
                need="an attention that this machine can compute",
                because="the model could not be opened, or only after minutes of loading",
                do="set task.attention: sdpa, or pip install 'vlm-r1[gpu]' on a GPU machine",
            )
    return task.attention


def check_precision(params: Params) -> str:
    """ZeRO on GPUs in 32 bits, or in other numbers than the task's, costs twice and surprises."""
    dtype, deepspeed = params.task.dtype, params.train.deepspeed
    if deepspeed is not None and dtype == "float32" and params.launch.device == "cuda":
        raise ConfigError(
            got=f"train.deepspeed {deepspeed} with task.dtype float32 on GPUs",
            need="bfloat16",
            because="weights, gradients and traffic double, and nobody asked for it",
            do="set task.dtype: bfloat16",
        )
    on_gpu = params.launch.device != "cpu" and torch.cuda.is_available()
    if dtype == "bfloat16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise ConfigError(
            got=f"task.dtype bfloat16 on {torch.cuda.get_device_name()}",
            need="a GPU that computes in bfloat16 (Ampere or later)",
            because="it would be emulated, many times slower",
            do="use another GPU, or float32 without flash-attention",
        )
    return dtype


def check_liger(params: Params) -> str:
    """Liger's kernels want their package and a GPU."""
    if not params.train.liger:
        return "off"
    there = importlib.util.find_spec("liger_kernel") is not None
    if not there or not torch.cuda.is_available():
        raise ConfigError(
            got="train.liger without " + ("a CUDA device" if there else "the package liger-kernel"),
            need="liger-kernel>=0.8.2 (TRL 1.16's own bound) and a GPU",
            because="its kernels are Triton code",
            do="pip install 'liger-kernel>=0.8.2', or set train.liger: false",
        )
    return f"liger-kernel {metadata.version('liger-kernel')}"


def check_coordinate_space(task: Task, family: Family) -> str:
    """A model is asked in a coordinate space that it was taught."""
    if task.coordinate_space not in family.coordinate_spaces:
        raise ConfigError(
            got=f"task.coordinate_space {task.coordinate_space} with {family.name}",
            need=" or ".join(family.coordinate_spaces),
            because=f"{family.name} was taught that coordinate space; boxes read in another are all wrong",
            do=f"set task.coordinate_space: {family.coordinate_spaces[0]}",
        )
    return f"{family.name} speaks {task.coordinate_space}"


def require_rollouts(grpo: Grpo, processes: int) -> None:
    """Refuse what TRL would refuse or spoil once the model is loaded.

    Raises:
        ConfigError: a rollout without whole groups, vLLM missing, or its known defect.
    """
    rows = grpo.micro_batch * processes * (grpo.steps_per_generation or 0)
    if rows % grpo.num_generations:
        raise ConfigError(
            got=f"a rollout of {grpo.steps_per_generation} x {processes} x micro_batch "
            f"{grpo.micro_batch} = {rows} completions, grpo.num_generations {grpo.num_generations}",
            need="whole groups of num_generations completions in a rollout",
            because="an advantage is a reward's distance from its group's mean",
            do="choose another grpo.steps_per_generation or grpo.micro_batch",
        )
    if grpo.rollouts == "vllm_colocate":
        raise ConfigError(
            got="grpo.rollouts: vllm_colocate",
            need="rollouts: transformers, or vllm_server",
            because="TRL 1.16 hands vLLM prompts whose image placeholders are expanded already, "
            "and vLLM expands them again: the model is asked something else (TRL #6294)",
            do="use vllm_server, where TRL places the features itself, or transformers",
        )
    if grpo.rollouts == "vllm_server" and importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            got="grpo.rollouts: vllm_server, and no package vllm here",
            need="vllm here, and a vLLM server at launch.vllm_server_url, on other GPUs",
            because="TRL hands the server its weights through vllm's own communicator",
            do="pip install 'trl[vllm]' and start the server, or rollouts: transformers",
        )
