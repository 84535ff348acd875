"""Trains one method from the shared base: the same base, rows, order and grid for both."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from transformers import PrinterCallback, Trainer
from trl import GRPOTrainer, SFTTrainer

from vlm_r1 import prompts
from vlm_r1.config import Params, Task
from vlm_r1.contract import TrainingContract
from vlm_r1.data.images import open_picture
from vlm_r1.models import guard
from vlm_r1.models.families import family_of
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.models.options import freeze, lora_config
from vlm_r1.models.probes import Sample, processor_checks
from vlm_r1.training.arguments import grpo_arguments, is_cpu, sft_arguments
from vlm_r1.training.callbacks import LogFile, WriteContract
from vlm_r1.training.reward_functions import RewardFunctions
from vlm_r1.training.rows import grpo_rows, sft_rows, training_order


@dataclass(frozen=True)
class TrainingJob:
    """What a training needs to know.

    Attributes:
        records: the training records, in the file's order.
        images: the folder their pictures are relative to.
        output: `models/<method>`, where checkpoints and logs are written.
    """

    method: str
    params: Params
    contract: TrainingContract
    base: str | Path
    records: pd.DataFrame
    images: Path
    output: Path


def train(job: TrainingJob) -> None:
    """Train to the last step; leaves checkpoints, training_log.jsonl and cost.json."""
    started = time.monotonic()
    _join_processes(job.params)
    trainer = _build_trainer(job)
    if job.params.train.lora is not None:  # by the name in the params: PEFT wrote an absolute path
        adapter = trainer.model.peft_config["default"]
        adapter.base_model_name_or_path = job.params.task.base_model
    trainer.remove_callback(PrinterCallback)  # LogFile shows the main quantities as one line
    trainer.add_callback(LogFile(job.output / "training_log.jsonl"))
    trainer.add_callback(WriteContract(job.contract))
    trainer.train()
    if trainer.is_world_process_zero():
        _write_cost(job, trainer, time.monotonic() - started)
    trainer.accelerator.wait_for_everyone()  # all files are written when the first process ends


def _join_processes(params: Params) -> None:
    """Meet the other processes where DeepSpeed would not find them: on CPUs it looks for MPI."""
    if params.train.deepspeed and is_cpu(params.launch):
        import deepspeed

        # Gloo will do; DeepSpeed would first compile a helper of its own, for two minutes.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)


def _build_trainer(job: TrainingJob) -> Trainer:
    params, processes = job.params, job.params.launch.processes
    needed = params.train.steps * params.train.prompts_per_step
    order = training_order(len(job.records), needed, params.experiment.seed)
    records = job.records.iloc[order].reset_index(drop=True)
    guard.require(guard.machine_checks(params))
    model = load_model(job.base, _weights_task(params))
    processor = load_processor(job.base, params.task)
    family, lora = family_of(model.config.model_type), params.train.lora
    guard.require(guard.family_checks(params, model.config.model_type))
    guard.require(processor_checks(processor, family, params.task, _sample(job)))
    freeze(model, family, params.train)
    shared = {
        "model": model,
        "processing_class": processor,
        "peft_config": lora and lora_config(model, family, lora),
    }
    if job.method == "sft":
        trainer = SFTTrainer(
            args=sft_arguments(params, job.output, processes),
            train_dataset=sft_rows(records, job.images, params, family),
            **shared,
        )
        # Every answer token weighs the same, however rows are split into micro-batches and
        # processes. Qwen2.5-VL's class says that its forward cannot do that; TRL's own loss can.
        trainer.model_accepts_loss_kwargs = True
        return trainer
    return GRPOTrainer(
        reward_funcs=RewardFunctions(params, job.output / "samples").as_list(),
        args=grpo_arguments(params, job.output, processes),
        train_dataset=grpo_rows(records, job.images, params, family),
        **shared,
    )


def _sample(job: TrainingJob) -> Sample:
    """The first record as the method asks it."""
    first, template = job.records.iloc[0], getattr(job.params.task.prompts, job.method)
    text = prompts.ask(template, prompts.question_for(first["expression"]))
    return Sample(open_picture(job.images / first["image"]), text)


def _weights_task(params: Params) -> Task:
    """How the weights are held: in 32 bits where nothing else keeps a master copy.

    An AdamW step of 1e-6 is lost in bfloat16's 8 bits. ZeRO keeps a copy in 32 bits, adapters are
    in 32 bits themselves; else the weights are, and autocast computes in the task's dtype.
    """
    keeps_copy = params.train.deepspeed is not None or params.train.lora is not None
    return params.task if keeps_copy else params.task.model_copy(update={"dtype": "float32"})


def _write_cost(job: TrainingJob, trainer: Trainer, seconds: float) -> None:
    """What the training took: wall time, prompts, completions, and the tokens TRL counted."""
    asked = job.params.train.steps * job.params.train.prompts_per_step
    per_prompt = job.params.grpo.num_generations if job.method == "grpo" else 1
    counted = [row["num_tokens"] for row in trainer.state.log_history if "num_tokens" in row]
    cost = {
        "method": job.method,
        "seconds": round(seconds, 1),
        "prompts": asked,
        "completions": asked * per_prompt,
        "tokens": int(counted[-1]) if counted else None,
    }
    (job.output / "cost.json").write_text(json.dumps(cost, indent=1) + "\n", encoding="utf-8")
