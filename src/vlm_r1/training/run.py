"""Trains one method from the shared base: the same base, rows, order and grid for both."""

import json
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from transformers import PrinterCallback, Trainer
from trl import GRPOConfig, SFTConfig

from vlm_r1.config import Params
from vlm_r1.contract import TrainingContract
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.training import resume
from vlm_r1.training.arguments import grpo_arguments, prompts_read, sft_arguments
from vlm_r1.training.callbacks import Listener, LogFile, Stopwatch, WriteContract
from vlm_r1.training.cost import estimate_flops, size_of
from vlm_r1.training.health import HealthMonitor
from vlm_r1.training.reward_functions import RewardFunctions
from vlm_r1.training.rows import grpo_rows, sft_rows, training_order
from vlm_r1.training.trainers import Grpo, Sft


@dataclass(frozen=True)
class TrainingJob:
    """What a training needs to know.

    Attributes:
        records: the training records, in the file's order.
        images: the folder their pictures are relative to.
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
    arguments = _arguments(job)
    every = resume.rollout_steps(arguments)
    trainer = _build_trainer(job, arguments)
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


def _arguments(job: TrainingJob) -> SFTConfig | GRPOConfig:
    make = sft_arguments if job.method == "sft" else grpo_arguments
    return make(job.params, job.output)


def _build_trainer(job: TrainingJob, arguments: SFTConfig | GRPOConfig) -> Trainer:
    params = job.params
    order = training_order(len(job.records), prompts_read(arguments), params.experiment.seed)
    records = job.records.iloc[order].reset_index(drop=True)
    if job.method == "grpo":
        rows = grpo_rows(records, job.images, params)
        rewards = RewardFunctions(params, job.output / "samples", job.root)
        rewards.try_on(rows[0])
    model = load_model(job.base, params.task)
    processor = load_processor(job.base, params.task)
    if job.method == "sft":
        return Sft(
            params.task,
            model=model,
            args=arguments,
            train_dataset=sft_rows(records, job.images, params),
            processing_class=processor,
        )
    return Grpo(
        params.task,
        model=model,
        reward_funcs=rewards.as_list(),
        args=arguments,
        train_dataset=rows,
        processing_class=processor,
    )


def _write_cost(job: TrainingJob, trainer: Trainer, seconds: float) -> None:
    """What the training took: seconds, prompts, completions, TRL's count of tokens, operations."""
    prompts = prompts_read(trainer.args)
    per_prompt = job.params.grpo.num_generations if job.method == "grpo" else 1
    lines = resume.read_log(job.output / resume.LOG)
    tokens = max(int(line["num_tokens"]) for line in lines if "num_tokens" in line)
    cost = {
        "method": job.method,
        "seconds": round(seconds, 1),
        "prompts": prompts,
        "completions": prompts * per_prompt,
        "tokens": tokens,
        "flops": estimate_flops(size_of(trainer.model), tokens, trainer.args),
    }
    (job.output / "cost.json").write_text(json.dumps(cost, indent=1) + "\n", encoding="utf-8")
