"""Refuses combinations that fail or train wrongly, from params, packages and devices alone.

preflight/probes.py runs a sample through processor and model. `vlm-r1 doctor` runs every check, a
training only the quick ones.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import torch
from packaging.version import Version
from transformers.utils.import_utils import (
    KERNELS_MAX_VERSION,
    KERNELS_MIN_VERSION,
    is_kernels_available,
)

from vlm_r1.config import Params, Task
from vlm_r1.config.training import Grpo, Launch, Train
from vlm_r1.errors import ConfigError, InputError
from vlm_r1.models.families import Family, family_of
from vlm_r1.preflight.requirements import unmet_requirements


@dataclass(frozen=True)
class PreflightResult:
    """What a check found, and the error if it refuses."""

    check: str
    seen: str
    fault: InputError | None = None


Check = Callable[[], str]  # returns what it found, raises InputError to refuse


def run_checks(checks: dict[str, Check]) -> list[PreflightResult]:
    """Run every check, also after one that refuses."""
    results = []
    for name, check in checks.items():
        try:
            results.append(PreflightResult(name, check()))
        except InputError as fault:
            results.append(PreflightResult(name, fault.got, fault))
    return results


def require_checks(checks: dict[str, Check]) -> None:
    """Run the checks up to the first that refuses.

    Raises:
        ConfigError, ModelError: what is wrong and what to do.
    """
    for check in checks.values():
        check()


def machine_checks(params: Params) -> dict[str, Check]:
    """Checks of params, packages and devices, before a model is known."""
    task, train, launch = params.task, params.train, params.launch
    return {
        "devices": lambda: check_devices(launch),
        "attention": lambda: check_attention(task, launch),
        "precision": lambda: check_precision(task, train.deepspeed, launch),
        "kernels": lambda: check_kernels(train),
        "optimizer": lambda: check_optimizer(train, launch),
    }


def family_checks(task: Task, model_type: str) -> dict[str, Check]:
    """Checks that need only the model's type."""
    return {
        "versions": lambda: check_versions(model_type),
        "coordinate_space": lambda: check_coordinate_space(task, family_of(model_type)),
    }


def check_versions(model_type: str) -> str:
    """Refuse transformers 5.4.0 to 5.5.3 for Qwen2.5-VL: wrong rotary positions of still images.

    Sources: huggingface/transformers #45325, #45330; huggingface/lerobot #3648.
    """
    found = metadata.version("transformers")
    if model_type == "qwen2_5_vl" and Version("5.4.0") <= Version(found) < Version("5.5.4"):
        raise ConfigError(
            got=f"transformers {found} with Qwen2.5-VL",
            need="transformers below 5.4.0 or from 5.5.4 on",
            because="the versions in between give still images wrong rotary positions",
            do="pip install 'transformers>=5.5.4'",
        )
    return f"transformers {found}, torch {metadata.version('torch')}"


def check_devices(launch: Launch) -> str:
    """Refuse `device: cuda` with fewer GPUs than processes on this node, and one that sees more."""
    found = torch.cuda.device_count()
    if launch.device != "cpu" and launch.processes == 1 and found > 1:
        raise ConfigError(
            got=f"one process that sees {found} CUDA devices",
            need="one device",
            because="transformers would wrap the model in DataParallel, which cannot train it",
            do="start it by `vlm-r1 stage`, `vlm-r1 launch` or `dvc repro`, or set "
            "CUDA_VISIBLE_DEVICES=0; for all GPUs raise launch.processes_per_node",
        )
    if launch.device == "cuda" and found < launch.processes_per_node:
        raise ConfigError(
            got=f"{found} CUDA devices",
            need=f"{launch.processes_per_node}, launch.processes_per_node",
            because="launch.device is cuda, and every process needs its own GPU",
            do="lower launch.processes_per_node, or set launch.device: cpu for a trial",
        )
    return f"{launch.processes} x {launch.device}, {found} CUDA devices here"


def check_attention(task: Task, launch: Launch) -> str:
    """Refuse flash_attention_2 without a GPU, code for it and a 16-bit dtype.

    Where flash-attn is not installed transformers takes the hub's kernel of the same code, through
    the package kernels (transformers/modeling_utils.py, FLASH_ATTN_KERNEL_FALLBACK).
    """
    if task.attention == "flash_attention_2":
        requirements = {
            "a CUDA device": launch.device != "cpu" and torch.cuda.is_available(),
            "the package kernels or flash-attn": is_kernels_available()
            or importlib.util.find_spec("flash_attn") is not None,
            "a 16-bit task.dtype": task.dtype != "float32",
        }
        missing = [name for name, is_met in requirements.items() if not is_met]
        if missing:
            raise ConfigError(
                got=f"task.attention flash_attention_2 without {' and '.join(missing)}",
                need="an attention implementation that this machine can run",
                because="loading the model would fail, possibly after minutes",
                do="set task.attention: sdpa, or on a GPU machine pip install --no-build-isolation "
                "'vlm-r1[flash-attn]'",
            )
    return task.attention


def check_precision(task: Task, deepspeed: str | None, launch: Launch) -> str:
    """Refuse ZeRO in 32 bits on GPUs, and bfloat16 on a GPU that only emulates it."""
    dtype = task.dtype
    if deepspeed is not None and dtype == "float32" and launch.device == "cuda":
        raise ConfigError(
            got=f"train.deepspeed {deepspeed} with task.dtype float32 on GPUs",
            need="bfloat16",
            because="32 bits double the memory for weights and gradients, and the traffic",
            do="set task.dtype: bfloat16",
        )
    on_gpu = launch.device != "cpu" and torch.cuda.is_available()
    if dtype == "bfloat16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise ConfigError(
            got=f"task.dtype bfloat16 on {torch.cuda.get_device_name()}",
            need="a GPU with bfloat16 arithmetic (Ampere or later)",
            because="emulated bfloat16 is many times slower",
            do="use another GPU, or float32 without flash-attention",
        )
    return dtype


def check_kernels(train: Train) -> str:
    """Refuse kernels of the hub without their package or a GPU."""
    if not train.use_kernels:
        return "off"
    is_installed = is_kernels_available()
    if not is_installed or not torch.cuda.is_available():
        version = f"kernels >= {KERNELS_MIN_VERSION}, < {KERNELS_MAX_VERSION}"
        missing = "a CUDA device" if is_installed else f"the package {version}"
        raise ConfigError(
            got=f"train.use_kernels without {missing}",
            need=f"{version} and a GPU",
            because="the hub's kernels are compiled for GPUs",
            do="install that version on a GPU machine, or set train.use_kernels: false",
        )
    return f"kernels {metadata.version('kernels')}"


def check_optimizer(train: Train, launch: Launch) -> str:
    """Refuse 8-bit AdamW without its package or a GPU, and under ZeRO."""
    if train.optimizer == "adamw":
        return train.optimizer
    faults = {
        "without the package bitsandbytes": importlib.util.find_spec("bitsandbytes") is None,
        "without a CUDA device": launch.device == "cpu" or not torch.cuda.is_available(),
        f"with train.deepspeed {train.deepspeed}": train.deepspeed is not None,
    }
    found = [fault for fault, is_met in faults.items() if is_met]
    if found:
        raise ConfigError(
            got=f"train.optimizer {train.optimizer} {' and '.join(found)}",
            need="bitsandbytes and a GPU, and no ZeRO",
            because="its moments are updated by CUDA kernels, and ZeRO shards moments of its own",
            do="set train.optimizer: adamw; to save memory, train.deepspeed: zero3 or train.lora",
        )
    return f"bitsandbytes {metadata.version('bitsandbytes')}"


def check_coordinate_space(task: Task, family: Family) -> str:
    """Refuse a coordinate space that the family was not trained on."""
    if task.coordinate_space not in family.coordinate_spaces:
        raise ConfigError(
            got=f"task.coordinate_space {task.coordinate_space} with {family.name}",
            need=" or ".join(family.coordinate_spaces),
            because=f"{family.name} was trained on that, and boxes read otherwise are all wrong",
            do=f"set task.coordinate_space: {family.coordinate_spaces[0]}",
        )
    return f"{family.name} writes {task.coordinate_space}"


def check_rollouts(grpo: Grpo, processes: int) -> str:
    """Refuse rollouts that TRL rejects, or corrupts, only after the model is loaded.

    A rollout that does not hold whole groups, a vLLM that does not fit what is installed, and vLLM
    in TRL's own process, which corrupts the image placeholders (TRL #6294, #6718). Options that
    another one ignores or spoils.
    """
    _check_combinations(grpo)
    rows = grpo.micro_batch * processes * (grpo.steps_per_generation or 0)
    if rows % grpo.num_generations:
        raise ConfigError(
            got=f"a rollout of {grpo.steps_per_generation} x {processes} x micro_batch "
            f"{grpo.micro_batch} = {rows} completions, grpo.num_generations {grpo.num_generations}",
            need="whole groups of num_generations completions in a rollout",
            because="an advantage is a reward minus the mean of its group",
            do="choose another grpo.steps_per_generation or grpo.micro_batch",
        )
    if grpo.rollouts == "vllm_colocate":
        raise ConfigError(
            got="grpo.rollouts: vllm_colocate",
            need="rollouts: transformers, or vllm_server",
            because="TRL 1.16 passes vLLM prompts whose image placeholders are expanded already, "
            "and vLLM expands them again: the model sees another prompt (TRL #6294)",
            do="use vllm_server, where TRL inserts the features itself, or transformers",
        )
    if grpo.rollouts == "vllm_server" and (unmet := unmet_requirements("trl[vllm]")):
        raise ConfigError(
            got=f"grpo.rollouts: vllm_server, but TRL's extra vllm is not met: {'; '.join(unmet)}",
            need="a vLLM in this environment that takes the torch and transformers installed here",
            because="TRL sends the server its weights through vllm's own communicator, and each "
            "vLLM pins the versions of torch and transformers that it works with",
            do="rollouts: transformers. `pip install --dry-run 'trl[vllm]'` beside this project's "
            "pins tells when a vLLM fits; to evaluate with vLLM see docs/vllm.md",
        )
    return grpo.rollouts


def _check_combinations(grpo: Grpo) -> None:
    """Refuse options of a rollout that another one ignores or spoils."""
    if grpo.stop_at_answer and grpo.mask_truncated_completions:
        raise ConfigError(
            got="grpo.stop_at_answer with grpo.mask_truncated_completions",
            need="one of them",
            because="TRL takes a completion without an end of turn for one that the limit cut off, "
            "and would train on none that ends at </answer>",
            do="set one of them to false",
        )
    if grpo.max_resamples and grpo.scale_rewards == "batch":
        raise ConfigError(
            got="grpo.max_resamples with grpo.scale_rewards batch",
            need="scale_rewards: group or none",
            because="further groups are a batch of their own, with another deviation",
            do="choose another grpo.scale_rewards, or set max_resamples: 0",
        )
    if grpo.rollouts != "transformers" and (grpo.stop_at_answer or grpo.drop_finished):
        raise ConfigError(
            got=f"grpo.stop_at_answer or grpo.drop_finished with grpo.rollouts {grpo.rollouts}",
            need="rollouts: transformers",
            because="they change how transformers writes completions, not how a server does",
            do="set both to false: vLLM drops finished completions by itself",
        )
