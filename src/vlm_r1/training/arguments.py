"""params.yaml -> TRL's arguments. The one place where our names meet TRL's."""

import math
from pathlib import Path
from typing import Any

import torch
from trl import GRPOConfig, SFTConfig

from vlm_r1.config import Params
from vlm_r1.config.deepspeed import deepspeed_config
from vlm_r1.config.training import Launch, Optimizer
from vlm_r1.errors import ConfigError
from vlm_r1.preflight.checks import check_rollouts


def sft_arguments(params: Params, output: Path, processes: int = 1) -> SFTConfig:
    """TRL's SFT arguments: `prompts_per_step` rows an optimizer step, in the given order."""
    return SFTConfig(
        **_shared_arguments(params, params.sft, output),
        gradient_accumulation_steps=_accumulation(
            params.train.prompts_per_step, params.sft.micro_batch, processes, "sft"
        ),
        train_sampling_strategy="sequential",  # rows come shuffled; see rows.training_order
        max_length=None,  # truncation would cut image tokens
    )


def grpo_arguments(params: Params, output: Path, processes: int = 1) -> GRPOConfig:
    """TRL's GRPO arguments: `prompts_per_step` prompts x `num_generations` completions a step.

    Raises:
        ConfigError: a step or a rollout does not split as it must, or vLLM cannot be used.
    """
    grpo = params.grpo
    check_rollouts(grpo, processes)
    return GRPOConfig(
        **_shared_arguments(params, grpo, output),
        gradient_accumulation_steps=_accumulation(
            params.train.prompts_per_step * grpo.num_generations,
            grpo.micro_batch,
            processes,
            "grpo",
        ),
        shuffle_dataset=False,  # rows come shuffled; see rows.training_order
        remove_unused_columns=False,  # the rewards read the other columns
        num_generations=grpo.num_generations,
        num_iterations=grpo.num_iterations,
        steps_per_generation=grpo.steps_per_generation,
        max_completion_length=grpo.max_completion_tokens,
        temperature=grpo.temperature,
        beta=grpo.beta,
        epsilon=grpo.epsilon,
        epsilon_high=grpo.epsilon_high,
        reward_weights=list(grpo.rewards.values()),
        loss_type=grpo.loss_type,  # TRL's own default is dapo
        importance_sampling_level=grpo.importance_sampling_level,
        use_vllm=grpo.rollouts != "transformers",
        vllm_mode="server",  # the only mode that check_rollouts lets through
        vllm_server_base_url=grpo.vllm_server_url,
    )


def prompts_read(arguments: SFTConfig | GRPOConfig) -> int:
    """How many prompts a training reads: fewer with `num_iterations`, a multiple of a rollout's."""
    micro_batches = arguments.max_steps * arguments.gradient_accumulation_steps
    if not isinstance(arguments, GRPOConfig):
        rows = arguments.per_device_train_batch_size * arguments.world_size
        return micro_batches * rows
    per_rollout = arguments.steps_per_generation * arguments.num_iterations
    rollouts = math.ceil(micro_batches / per_rollout)
    return rollouts * arguments.generation_batch_size // arguments.num_generations


def _shared_arguments(params: Params, optimizer: Optimizer, output: Path) -> dict:
    train = params.train
    return {
        "output_dir": str(output),
        "per_device_train_batch_size": optimizer.micro_batch,
        "max_steps": train.steps,
        "learning_rate": optimizer.learning_rate,
        "lr_scheduler_type": optimizer.schedule,
        "warmup_steps": round(optimizer.warmup_share * train.steps),
        "max_grad_norm": train.max_grad_norm,
        "weight_decay": 0.0,
        "save_strategy": "steps",
        "save_steps": train.save_every,
        "save_only_model": train.save_only_model,
        "logging_steps": train.log_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # a loss that is none is logged, and health alarms
        "seed": params.experiment.seed,
        "data_seed": params.experiment.seed,
        "bf16": params.task.dtype == "bfloat16",  # TRL's default is True, also on a CPU
        "fp16": params.task.dtype == "float16",
        "gradient_checkpointing": train.gradient_checkpointing,  # TRL's default is True
        "use_liger_kernel": train.liger,
        "deepspeed": deepspeed_config(train.deepspeed),
        "report_to": "none",  # transformers' callbacks wait for a server that is away; see LogFile
        "disable_tqdm": True,  # progress comes as lines, see callbacks.LogFile
        **_device_arguments(params.launch),
    }


def resolved_arguments(params: Params, method: str, output: Path) -> dict[str, Any]:
    """Every argument that TRL would train with on the machines the params ask for, as plain values.

    TRL itself resolves them, here on one CPU process that takes the rows of all.

    Raises:
        ConfigError: a step does not split into whole micro-batches.
    """
    launch, optimizer = params.launch, getattr(params, method)
    whole = optimizer.model_copy(update={"micro_batch": optimizer.micro_batch * launch.processes})
    here = params.model_copy(
        update={
            "launch": Launch(device="cpu"),
            "train": params.train.model_copy(update={"deepspeed": None}),
            method: whole,
        }
    )
    arguments = (sft_arguments if method == "sft" else grpo_arguments)(here, output).to_dict()
    return arguments | {
        "per_device_train_batch_size": optimizer.micro_batch,
        "deepspeed": deepspeed_config(params.train.deepspeed),
        **_device_arguments(launch),
    }


def is_cpu(launch: Launch) -> bool:
    """Whether training runs on CPUs: asked for, or all there is."""
    return launch.device == "cpu" or (launch.device == "auto" and not torch.cuda.is_available())


def _device_arguments(launch: Launch) -> dict:
    """Where it runs, and how processes talk; a lone process takes no backend."""
    cpu = is_cpu(launch)
    backend = {"ddp_backend": "gloo" if cpu else "nccl"} if launch.processes > 1 else {}
    return {"use_cpu": cpu, "dataloader_pin_memory": not cpu, **backend}


def _accumulation(rows_per_step: int, micro_batch: int, processes: int, method: str) -> int:
    """Micro-batches an optimizer step takes.

    Raises:
        ConfigError: the step does not split into whole micro-batches.
    """
    steps, rest = divmod(rows_per_step, micro_batch * processes)
    if rest or not steps:
        raise ConfigError(
            got=f"{rows_per_step} rows per step, {processes} x {method}.micro_batch {micro_batch}",
            need="a whole number of micro-batches per step",
            because="both methods must see exactly prompts_per_step prompts in every step",
            do=f"choose a {method}.micro_batch that divides {rows_per_step // processes or 1}",
        )
    return steps
