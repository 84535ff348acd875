"""The arguments a training would run with, for `vlm-r1 launch --dry-run` and docs/training.md."""

from pathlib import Path
from typing import Any

from vlm_r1.config import Method, Params
from vlm_r1.config.deepspeed import deepspeed_config
from vlm_r1.training.arguments import device_arguments
from vlm_r1.training.grpo import grpo_arguments
from vlm_r1.training.sft import sft_arguments

ONE_CPU_PROCESS = {"device": "cpu", "processes_per_node": 1, "nodes": 1, "endpoint": None}


def resolved_arguments(params: Params, method: Method, output: Path) -> dict[str, Any]:
    """Every TRL argument of a training on the machines that the params ask for, as plain values.

    TRL resolves them here as for one CPU process that takes the rows of all processes; device and
    DeepSpeed arguments are then put back. So a laptop can show the arguments of eight GPUs.

    Raises:
        ConfigError: a step does not split into whole micro-batches.
    """
    launch, optimizer = params.launch, params.sft if method == "sft" else params.grpo
    all_rows = {"micro_batch": optimizer.micro_batch * launch.processes}
    on_one_cpu = params.model_copy(
        update={
            "launch": launch.model_copy(update=ONE_CPU_PROCESS),
            "train": params.train.model_copy(update={"deepspeed": None}),
            method: optimizer.model_copy(update=all_rows),
        }
    )
    make_arguments = sft_arguments if method == "sft" else grpo_arguments
    return make_arguments(on_one_cpu, output).to_dict() | {
        "per_device_train_batch_size": optimizer.micro_batch,
        "deepspeed": deepspeed_config(params.train.deepspeed),
        **device_arguments(launch),
    }
