"""Trains one method from the shared base: the same base, rows, order and grid for both."""

import json
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel, PrinterCallback, Trainer
from trl import GRPOConfig, SFTConfig

from vlm_r1.config import Params, Task
from vlm_r1.data.images import open_image
from vlm_r1.models.families import family_of
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.models.trainable import freeze, lora_config
from vlm_r1.preflight import checks
from vlm_r1.preflight.probes import Sample, processor_checks
from vlm_r1.rec import prompts
from vlm_r1.rec.contract import TrainingContract
from vlm_r1.training import resume
from vlm_r1.training.arguments import grpo_arguments, is_cpu, prompts_read, sft_arguments
from vlm_r1.training.callbacks import Listener, LogFile, Stopwatch, WriteContract
from vlm_r1.training.dataset import grpo_rows, sft_rows, training_order
from vlm_r1.training.flops import estimate_flops, size_of
from vlm_r1.training.health import HealthMonitor
from vlm_r1.training.reward_functions import RewardFunctions
from vlm_r1.training.trainers import ResumableGRPOTrainer, ResumableSFTTrainer


@dataclass(frozen=True)
class TrainingJob:
    """What a training needs to know.

    Attributes:
        records: the training records, in the file's order.
        images: the folder their images are relative to.
        output: where checkpoints and logs are written.
        root: the project's root, which paths in params are relative to.
        listener: is handed every line of the log as it is written.
    """

    method: str
    params: Params
    contract: TrainingContract
    base: str | Path
    records: pd.DataFrame
    images: Path
    output: Path
    root: Path
    listener: Listener = lambda line: None


def train(job: TrainingJob) -> None:
    """Train to the last step, from where an earlier attempt in the same folder stopped.

    Leaves checkpoints, training_log.jsonl, samples (GRPO), configuration.json and cost.json. If it
    is killed, or raises, what it wrote stays for the next attempt.

    Raises:
        ConfigError: a step does not split into micro-batches, or a reward cannot be used.
        ModelError: the base cannot be used, or another process trains into the folder.
        HealthError: `health.on_alarm` is stop, and it fell ill.
    """
    started = time.monotonic()
    _join_processes(job.params)
    checks.require_checks(checks.machine_checks(job.params))
    # Before the arguments: once they are made, transformers 5.23 loads a model in ZeRO-3's shares
    # and later saves it under names that no `from_pretrained` knows.
    model = load_model(job.base, _weights_task(job.params))
    arguments = _arguments(job)
    every = resume.rollout_steps(arguments)
    trainer = _build_trainer(job, model, arguments)
    if trainer.is_world_process_zero():
        configuration = resume.configuration_of(job.params, job.contract, job.method, job.root)
        resume.enter(job.output, configuration, every)
    trainer.accelerator.wait_for_everyone()
    stopwatch = Stopwatch(job.output / "seconds", started)
    monitor = HealthMonitor(job.params.health, resume.read_log(job.output / resume.LOG))
    trainer.remove_callback(PrinterCallback)  # LogFile shows the main quantities as one line
    log = LogFile(job.output / resume.LOG, job.listener)
    for callback in (monitor, log, WriteContract(job.contract), stopwatch):
        trainer.add_callback(callback)
    checkpoint = resume.newest_checkpoint(job.output, every)
    with resume.hold(job.output) if trainer.is_world_process_zero() else nullcontext():
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    monitor.require_health()
    if trainer.is_world_process_zero():
        _write_cost(job, trainer, stopwatch.seconds)
        stopwatch.forget()
        resume.tidy(job.output)
    trainer.accelerator.wait_for_everyone()  # all files are written when the first process ends


def _arguments(job: TrainingJob) -> SFTConfig | GRPOConfig:
    make = sft_arguments if job.method == "sft" else grpo_arguments
    return make(job.params, job.output, job.params.launch.processes)


def _join_processes(params: Params) -> None:
    """Meet the other processes where DeepSpeed would not find them: on CPUs it looks for MPI."""
    if params.train.deepspeed and is_cpu(params.launch):
        import deepspeed

        # Gloo will do; DeepSpeed would first compile a helper of its own, for two minutes.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)


def _build_trainer(
    job: TrainingJob, model: PreTrainedModel, arguments: SFTConfig | GRPOConfig
) -> Trainer:
    params = job.params
    order = training_order(len(job.records), prompts_read(arguments), params.experiment.seed)
    records = job.records.iloc[order].reset_index(drop=True)
    if job.method == "grpo":
        rewards = RewardFunctions(params, job.output / "samples", job.root)
        rewards.try_on(grpo_rows(records.head(1), job.images, params)[0])
    weights_task = _weights_task(params)
    processor = load_processor(job.base, params.task)
    family, lora = family_of(model.config.model_type), params.train.lora
    checks.require_checks(checks.family_checks(params.task, model.config.model_type))
    checks.require_checks(processor_checks(processor, family, params.task, _sample(job)))
    freeze(model, family, params.train)
    shared = {
        "model": model,
        "processing_class": processor,
        "peft_config": lora and lora_config(model, family, lora),
    }
    if job.method == "sft":
        trainer = ResumableSFTTrainer(
            weights_task,
            args=arguments,
            train_dataset=sft_rows(records, job.images, params, family),
            **shared,
        )
        # Every answer token weighs the same, however rows are split into micro-batches and
        # processes. Qwen2.5-VL's class says that its forward cannot do that; TRL's own loss can.
        trainer.model_accepts_loss_kwargs = True
    else:
        trainer = ResumableGRPOTrainer(
            weights_task,
            reward_funcs=rewards.as_list(),
            args=arguments,
            train_dataset=grpo_rows(records, job.images, params, family),
            **shared,
        )
    if lora is not None:  # by the name in the params: PEFT wrote an absolute path
        trainer.model.peft_config["default"].base_model_name_or_path = params.task.base_model
    return trainer


def _sample(job: TrainingJob) -> Sample:
    """The first record as the method asks it."""
    first, template = job.records.iloc[0], getattr(job.params.task.prompts, job.method)
    text = prompts.ask(template, prompts.question_for(first["expression"]))
    return Sample(open_image(job.images / first["image"]), text)


def _weights_task(params: Params) -> Task:
    """How the weights are held: in 32 bits where nothing else keeps a master copy.

    An AdamW step of 1e-6 is lost in bfloat16's 8 bits. ZeRO keeps a copy in 32 bits, adapters are
    in 32 bits themselves; else the weights are, and autocast computes in the task's dtype.
    """
    keeps_copy = params.train.deepspeed is not None or params.train.lora is not None
    return params.task if keeps_copy else params.task.model_copy(update={"dtype": "float32"})


def _write_cost(job: TrainingJob, trainer: Trainer, seconds: float) -> None:
    """What the training took: seconds, prompts, completions, TRL's count of tokens, operations."""
    asked = prompts_read(trainer.args)
    per_prompt = job.params.grpo.num_generations if job.method == "grpo" else 1
    lines = resume.read_log(job.output / resume.LOG)
    tokens = max(int(line["num_tokens"]) for line in lines if "num_tokens" in line)
    cost = {
        "method": job.method,
        "seconds": round(seconds, 1),
        "prompts": asked,
        "completions": asked * per_prompt,
        "tokens": tokens,
        "flops": estimate_flops(size_of(trainer.model), tokens, trainer.args),
    }
    (job.output / "cost.json").write_text(json.dumps(cost, indent=1) + "\n", encoding="utf-8")
