"""A few training steps, timed and weighed: by this project's trainers, or by TRL's own."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import Trainer, TrainerCallback
from trl import GRPOTrainer

from benchmarks.gpu.rewards import even_tokens
from vlm_r1.config import Method, Params
from vlm_r1.models.families import family_of
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.models.trainable import freeze
from vlm_r1.training.dataset import prompt_columns, to_dataset
from vlm_r1.training.grpo import grpo_arguments, grpo_rows
from vlm_r1.training.job import TrainingJob, load_job
from vlm_r1.training.reward_functions import RewardFunctions
from vlm_r1.training.run import Prepared
from vlm_r1.training.sft import sft_arguments, sft_rows
from vlm_r1.training.trainers import ResumableGRPOTrainer, ResumableSFTTrainer


@dataclass(frozen=True)
class Steps:
    """What a few steps took.

    Attributes:
        seconds: median of a step, without the first; of this process's CPU time on a CPU, where
            other load would change wall-clock time.
        peak_bytes: the most that torch held on the GPU; 0 on a CPU, where torch does not count.
        losses: finite or not.
        moved: the largest change of any number in the last trained weight.
    """

    seconds: float
    peak_bytes: int
    losses: list[float]
    moved: float

    @property
    def learned(self) -> bool:
        """Whether every loss is finite and weights have changed."""
        return all(map(math.isfinite, self.losses)) and self.moved > 0


def ours(params: Params, root: Path, method: Method) -> Steps:
    """Train as `vlm-r1 stage METHOD` does, without its files."""
    return _measured(make_trainer(params, root, method))


def make_trainer(params: Params, root: Path, method: Method) -> Trainer:
    """The trainer of `vlm-r1 stage METHOD` on the project in `root`."""
    job = load_job(params, root, method)
    make_arguments = sft_arguments if method == "sft" else grpo_arguments
    prepared = _prepared(job, make_arguments(params, root / "trained"))
    task, images = params.task, job.images
    if method == "sft":
        rows = sft_rows(job.records, images, task, prepared.family)
        return ResumableSFTTrainer(train_dataset=rows, **prepared.trainer_options())
    rewards = RewardFunctions(params.grpo, task.coordinate_space, root / "samples", root)
    return ResumableGRPOTrainer(
        params=params,
        train_dataset=grpo_rows(job.records, images, root, task, prepared.family),
        reward_funcs=rewards.as_list(),
        **prepared.trainer_options(),
    )


def stock_grpo(params: Params, root: Path) -> Steps:
    """Train with TRL's own trainer: the same model, arguments, prompts and reward."""
    job = load_job(params, root, "grpo")
    prepared = _prepared(job, grpo_arguments(params, root / "trained"))
    options: dict[str, Any] = prepared.trainer_options()
    del options["task"]
    columns = prompt_columns(job.records, job.images, params.task.prompts.grpo)
    return _measured(
        GRPOTrainer(train_dataset=to_dataset(columns), reward_funcs=[even_tokens], **options)
    )


def _prepared(job: TrainingJob, arguments: Any) -> Prepared:
    params = job.params
    # 32-bit weights and autocast, as training without DeepSpeed and adapters holds them
    model = load_model(job.base, params.task.model_copy(update={"dtype": "float32"}))
    family = family_of(model.config.model_type)
    freeze(model, family, params.train)
    processor = load_processor(job.base, params.task)
    return Prepared(job, model, processor, family, arguments, job.records)


class _Timer(TrainerCallback):
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Called by the Trainer before a step."""
        self._began = now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Called by the Trainer after a step."""
        self.seconds.append(now() - self._began)


def now() -> float:
    """Seconds: of a clock once the GPU has nothing left to do, or of this process's CPU time."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _measured(trainer: Trainer) -> Steps:
    timer = _Timer()
    trainer.add_callback(timer)
    assert trainer.model is not None
    weight = [p for p in trainer.model.parameters() if p.requires_grad][-1]
    before = weight.detach().cpu().clone()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    return Steps(
        seconds=median(timer.seconds[1:]),
        peak_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        losses=[line["loss"] for line in trainer.state.log_history if "loss" in line],
        moved=float((weight.detach().cpu() - before).abs().max()),
    )
