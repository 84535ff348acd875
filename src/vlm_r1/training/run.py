"""Trains one method from the shared base: the same base, rows, order and grid for both."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from transformers import PrinterCallback, Trainer
from trl import GRPOTrainer, SFTTrainer

from vlm_r1.config import Params
from vlm_r1.contract import TrainingContract
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.training.arguments import grpo_arguments, sft_arguments
from vlm_r1.training.callbacks import LogFile, WriteContract
from vlm_r1.training.reward_functions import RewardFunctions
from vlm_r1.training.rows import grpo_rows, sft_rows, training_order


@dataclass(frozen=True)
class TrainingJob:
    """What a training needs to know.

    Attributes:
        records: the training records, in the file's order.
        images: the folder their pictures are relative to.
        output: where checkpoints and logs are written.
        root: the project's root, which paths in params are relative to.
    """

    method: str
    params: Params
    contract: TrainingContract
    base: str | Path
    records: pd.DataFrame
    images: Path
    output: Path
    root: Path


def train(job: TrainingJob) -> None:
    """Train to the last step; leaves checkpoints, training_log.jsonl and cost.json."""
    started = time.monotonic()
    trainer = _build_trainer(job)
    trainer.remove_callback(PrinterCallback)  # LogFile shows the main quantities as one line
    trainer.add_callback(LogFile(job.output / "training_log.jsonl"))
    trainer.add_callback(WriteContract(job.contract))
    trainer.train()
    if trainer.is_world_process_zero():
        _write_cost(job, trainer, time.monotonic() - started)


def _build_trainer(job: TrainingJob) -> Trainer:
    params = job.params
    needed = params.train.steps * params.train.prompts_per_step
    order = training_order(len(job.records), needed, params.experiment.seed)
    records = job.records.iloc[order].reset_index(drop=True)
    if job.method == "grpo":
        rows = grpo_rows(records, job.images, params)
        rewards = RewardFunctions(params, job.output / "samples", job.root)
        rewards.try_on(rows[0])
    model = load_model(job.base, params.task)
    processor = load_processor(job.base, params.task)
    if job.method == "sft":
        return SFTTrainer(
            model=model,
            args=sft_arguments(params, job.output),
            train_dataset=sft_rows(records, job.images, params),
            processing_class=processor,
        )
    return GRPOTrainer(
        model=model,
        reward_funcs=rewards.as_list(),
        args=grpo_arguments(params, job.output),
        train_dataset=rows,
        processing_class=processor,
    )


def _write_cost(job: TrainingJob, trainer: Trainer, seconds: float) -> None:
    """What the training took: wall time, prompts, completions, and the tokens TRL counted."""
    prompts = job.params.train.steps * job.params.train.prompts_per_step
    per_prompt = job.params.grpo.num_generations if job.method == "grpo" else 1
    counted = [row["num_tokens"] for row in trainer.state.log_history if "num_tokens" in row]
    cost = {
        "method": job.method,
        "seconds": round(seconds, 1),
        "prompts": prompts,
        "completions": prompts * per_prompt,
        "tokens": int(counted[-1]) if counted else None,
    }
    (job.output / "cost.json").write_text(json.dumps(cost, indent=1) + "\n", encoding="utf-8")
