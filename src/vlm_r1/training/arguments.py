"""params.yaml -> the TRL arguments that SFT and GRPO share; sft.py and grpo.py add their own."""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from trl import GRPOConfig

from vlm_r1.config import Params
from vlm_r1.config.deepspeed import deepspeed_config
from vlm_r1.config.training import Launch, Optimizer
from vlm_r1.errors import ConfigError

# AdamW as transformers names it; torch's fused kernel, its default, or bitsandbytes' 8-bit moments
OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_bnb_8bit"}


def shared_arguments(params: Params, optimizer: Optimizer, output: Path) -> dict[str, Any]:
    """Arguments that both trainers get.

    Args:
        optimizer: the method's section of params.
        output: the folder for checkpoints.
    """
    train = params.train
    steps = optimizer.steps or train.steps
    return {
        "output_dir": str(output),
        "per_device_train_batch_size": optimizer.micro_batch,
        "max_steps": steps,
        "learning_rate": optimizer.learning_rate,
        "lr_scheduler_type": optimizer.schedule,
        "warmup_steps": round(optimizer.warmup_share * steps),
        "max_grad_norm": train.max_grad_norm,
        "weight_decay": 0.0,
        "save_strategy": "no",  # callbacks.SaveAtSteps saves
        "save_only_model": train.save_only_model,
        "logging_steps": train.log_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # log NaN and inf as they are, so that health sees them
        "seed": params.experiment.seed,
        "data_seed": params.experiment.seed,
        "bf16": params.task.dtype == "bfloat16",  # TRL's default is True, also on a CPU
        "fp16": params.task.dtype == "float16",
        "gradient_checkpointing": train.gradient_checkpointing,  # TRL's default is True
        "optim": OPTIMIZERS[train.optimizer],
        "deepspeed": deepspeed_config(train.deepspeed),
        "report_to": "none",  # transformers' MLflow callback blocks while the server is down
        "disable_tqdm": True,  # callbacks.LogFile logs progress as lines
        **device_arguments(params.launch),
    }


def device_arguments(launch: Launch) -> dict[str, Any]:
    """Device and communication backend; a single process needs no backend."""
    cpu = is_cpu(launch)
    backend: dict[str, Any] = {}
    if launch.processes > 1:
        backend["ddp_backend"] = "gloo" if cpu else "nccl"
        backend["ddp_timeout"] = launch.collective_timeout_s
    return {"use_cpu": cpu, "dataloader_pin_memory": not cpu, **backend}


def is_cpu(launch: Launch) -> bool:
    """True if training runs on CPUs, by choice or because there is no GPU."""
    return launch.device == "cpu" or (launch.device == "auto" and not torch.cuda.is_available())


def accumulation_steps(rows_per_step: int, micro_batch: int, processes: int, method: str) -> int:
    """Micro-batches that each process runs in one optimizer step.

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


def prompts_read(arguments: TrainingArguments) -> int:
    """Prompts that a whole training reads.

    SFT reads prompts_per_step a step. GRPO reads whole rollouts and trains `num_iterations` times
    on each, so it reads fewer prompts with more iterations.
    """
    micro_batches = arguments.max_steps * arguments.gradient_accumulation_steps
    if not isinstance(arguments, GRPOConfig):
        rows = arguments.per_device_train_batch_size * arguments.world_size
        return micro_batches * rows
    rollouts = math.ceil(micro_batches / rollout_micro_batches(arguments))
    assert arguments.generation_batch_size is not None  # TRL computes it
    return rollouts * arguments.generation_batch_size // completions_per_prompt(arguments)


def completions_per_prompt(arguments: TrainingArguments) -> int:
    """The size of a group of completions; 1 for SFT."""
    if not isinstance(arguments, GRPOConfig):
        return 1
    assert arguments.num_generations is not None  # params require it
    return arguments.num_generations


def rollout_micro_batches(arguments: GRPOConfig) -> int:
    """Micro-batches trained on one rollout."""
    assert arguments.steps_per_generation is not None  # TRL computes it
    return arguments.steps_per_generation * arguments.num_iterations


def rollout_steps(arguments: TrainingArguments) -> int:
    """Every how many optimizer steps a rollout and a step begin together; 1 for SFT.

    Training can resume only there: TRL does not save the completions of a rollout, so resuming
    within one would generate new ones.
    """
    if not isinstance(arguments, GRPOConfig):
        return 1
    micro_batches = rollout_micro_batches(arguments)
    return micro_batches // math.gcd(micro_batches, arguments.gradient_accumulation_steps)
