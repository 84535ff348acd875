"""The course of a training that SFT and GRPO share: the same base, rows, order and step grid."""

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProcessorMixin,
    Trainer,
    TrainingArguments,
)

from vlm_r1.config import Params, Task
from vlm_r1.config.training import Launch, Train
from vlm_r1.data.images import open_image
from vlm_r1.files import write_json
from vlm_r1.models.families import Family, family_of
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.models.trainable import freeze, lora_config
from vlm_r1.preflight import checks, probes
from vlm_r1.preflight.disk import check_disk, checkpoint_size, parameter_counts
from vlm_r1.preflight.host import check_host
from vlm_r1.rec import prompts
from vlm_r1.training import resume
from vlm_r1.training.arguments import (
    completions_per_prompt,
    is_cpu,
    prompts_read,
    rollout_steps,
)
from vlm_r1.training.callbacks import (
    KeepNewestState,
    Listener,
    LogFile,
    SaveAtSteps,
    WriteContract,
)
from vlm_r1.training.configuration import configuration_of
from vlm_r1.training.cost import COST, CheckpointCost, read_cost, watch_models
from vlm_r1.training.dataset import training_order
from vlm_r1.training.health import HealthMonitor
from vlm_r1.training.job import TrainingJob
from vlm_r1.training.stopwatch import Stopwatch


@dataclass(frozen=True)
class Prepared:
    """What a method builds its trainer from.

    Attributes:
        model: the base, with what is frozen already frozen.
        records: in training order, as many as the training reads.
    """

    job: TrainingJob
    model: PreTrainedModel
    processor: ProcessorMixin
    family: Family
    arguments: TrainingArguments
    records: pd.DataFrame

    def trainer_options(self) -> dict[str, Any]:
        """Arguments that both trainers take."""
        params, lora = self.job.params, self.job.params.train.lora
        return {
            "task": _weights_task(params.task, params.train),
            "model": self.model,
            "args": self.arguments,
            "processing_class": self.processor,
            "peft_config": lora and lora_config(self.model, self.family, lora),
        }


@dataclass(frozen=True)
class TrainerFactory:
    """What one method adds to the shared course.

    Attributes:
        make_arguments: (params, output folder, processes) -> TRL's arguments.
        make_trainer: builds TRL's trainer with the method's own rows.
        own_files: name -> user-written code that shapes the result, as a custom reward's file.
    """

    make_arguments: Callable[[Params, Path, int], TrainingArguments]
    make_trainer: Callable[[Prepared], Trainer]
    own_files: dict[str, Path] = field(default_factory=dict)


def train(job: TrainingJob, factory: TrainerFactory, listener: Listener) -> None:
    """Train to the last step, from where an earlier attempt at the same job stopped.

    Leaves checkpoints, training_log.jsonl, samples (GRPO), configuration.json and cost.json in
    `job.output`. Until the last step all is in `job.work_folder`; if training is killed or raises,
    the next attempt resumes from there. Every process runs this; the first one writes.

    Args:
        listener: is given every line of the log as it is written.

    Raises:
        ConfigError: a step does not split into micro-batches, an option cannot be used here, or the
            host's memory or the disk is too small.
        ModelError: the base cannot be used, or another process trains into the folder.
        HealthError: `health.on_alarm` is stop, and a check has alarmed.
    """
    started = time.monotonic()
    _join_processes(job.params.train, job.params.launch)
    checks.require_checks(checks.machine_checks(job.params))
    _share_cores(job.params.launch)  # only once the checks have found that there are GPUs
    check_host(job.params, job.method, Path(job.base))
    trainer = _build_trainer(job, factory)  # before any file is written: it can refuse the job
    _enter_work_folder(job, factory, trainer)
    _require_disk(job, trainer)
    stopwatch, monitor = _add_callbacks(job, trainer, listener, started)
    _train_from_newest_checkpoint(job.work_folder, trainer)
    monitor.require_health()  # before cost.json and the rename: the training is not finished
    if trainer.is_world_process_zero():
        _write_cost(job, trainer, stopwatch.seconds)
        stopwatch.forget()
        resume.finish(job.work_folder, job.output)
    trainer.accelerator.wait_for_everyone()  # no process ends before the folder is complete


def _join_processes(train: Train, launch: Launch) -> None:
    """Initialize DeepSpeed on CPUs, where by itself it would look for MPI and fail."""
    if train.deepspeed and is_cpu(launch):
        import deepspeed

        # Use gloo; DeepSpeed would first compile its own shared-memory backend, for two minutes.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(
            dist_backend="gloo",
            auto_mpi_discovery=False,
            timeout=timedelta(seconds=launch.collective_timeout_s),
        )


def _share_cores(launch: Launch) -> None:
    """Give each process on a GPU its share of the machine's cores, to prepare images with.

    On CPUs the number of threads stays: it sets the order of sums, and with it the last bits.
    """
    if not is_cpu(launch):
        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(max(1, cores // launch.processes_per_node))


def _build_trainer(job: TrainingJob, factory: TrainerFactory) -> Trainer:
    """The method's trainer on the base; the model is checked before anything is trained."""
    params = job.params
    # The model comes before the arguments: while arguments with ZeRO-3 exist, transformers 5.23
    # loads a model as shards and later saves it under names that `from_pretrained` does not know.
    model = load_model(job.base, _weights_task(params.task, params.train))
    arguments = factory.make_arguments(params, job.work_folder, params.launch.processes)
    processor = load_processor(job.base, params.task)
    family = family_of(model.config.model_type)
    checks.require_checks(checks.family_checks(params.task, model.config.model_type))
    checks.require_checks(
        probes.processor_checks(processor, family, params.task, _first_sample(job))
    )
    freeze(model, family, params.train)  # before TRL wraps the model with adapters
    if params.train.use_kernels:
        model.set_use_kernels(True)
    order = training_order(len(job.records), prompts_read(arguments), params.experiment.seed)
    records = job.records.iloc[order].reset_index(drop=True)
    return factory.make_trainer(Prepared(job, model, processor, family, arguments, records))


def _enter_work_folder(job: TrainingJob, factory: TrainerFactory, trainer: Trainer) -> None:
    """The first process makes the folder ready; the others wait, then all look into it."""
    if trainer.is_world_process_zero():
        configuration = configuration_of(job.params, job.contract, job.method, factory.own_files)
        resume.enter(job.work_folder, configuration, rollout_steps(trainer.args))
    trainer.accelerator.wait_for_everyone()


def _require_disk(job: TrainingJob, trainer: Trainer) -> None:
    """Require space for the checkpoints that are yet to be written."""
    assert isinstance(trainer.model, torch.nn.Module)
    size = checkpoint_size(job.params, *parameter_counts(trainer.model))
    has_state = resume.newest_checkpoint(job.work_folder, every=1) is not None
    check_disk(job.params, job.method, job.root, job.work_folder, size, has_state)


def _add_callbacks(
    job: TrainingJob, trainer: Trainer, listener: Listener, started: float
) -> tuple[Stopwatch, HealthMonitor]:
    """Callbacks run in this order: the monitor adds `health/*` to a line before it is written."""
    saver = SaveAtSteps(job.params.step_grid(job.method))
    log = job.work_folder / resume.LOG
    stopwatch = Stopwatch(job.work_folder / "seconds", started)
    monitor = HealthMonitor(job.params.health, resume.read_log(log))
    trainer.remove_callback(PrinterCallback)  # LogFile shows the main quantities as one line
    further = getattr(trainer, "further", None)
    cost = CheckpointCost(watch_models(trainer), stopwatch, further)
    writers = LogFile(log, listener), stopwatch, cost, WriteContract(job.contract)
    for callback in (saver, monitor, *writers, KeepNewestState(rollout_steps(trainer.args))):
        trainer.add_callback(callback)
    return stopwatch, monitor


def _train_from_newest_checkpoint(folder: Path, trainer: Trainer) -> None:
    checkpoint = resume.newest_checkpoint(folder, rollout_steps(trainer.args))
    with resume.hold(folder) if trainer.is_world_process_zero() else nullcontext():
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def _first_sample(job: TrainingJob) -> probes.Sample:
    """The first record as the method asks about it."""
    first, template = job.records.iloc[0], getattr(job.params.task.prompts, job.method)
    text = prompts.fill_template(template, prompts.question_for(first["expression"]))
    return probes.Sample(open_image(job.images / first["image"]), text)


def _weights_task(task: Task, train: Train) -> Task:
    """`task` with the dtype that weights are held in: 32 bits where nothing keeps a master copy.

    An AdamW update of 1e-6 is lost in bfloat16's 8 bits of precision. ZeRO keeps a 32-bit copy, and
    adapters are 32-bit themselves; else the weights are, and autocast computes in the task's dtype.
    """
    keeps_copy = train.deepspeed is not None or train.lora is not None
    return task if keeps_copy else task.model_copy(update={"dtype": "float32"})


def _write_cost(job: TrainingJob, trainer: Trainer, seconds: float) -> None:
    """Write cost.json: seconds, prompts, completions, TRL's token count, FLOPs, per checkpoint."""
    steps = job.params.step_grid(job.method)[1:]
    checkpoints = [read_cost(job.work_folder / f"checkpoint-{step}") for step in steps]
    prompts_asked = prompts_read(trainer.args) + checkpoints[-1].get("further_prompts", 0)
    cost = {
        "method": job.method,
        "seconds": round(seconds, 1),
        "prompts": prompts_asked,
        "completions": prompts_asked * completions_per_prompt(trainer.args),
        "tokens": checkpoints[-1]["tokens"],
        "flops": checkpoints[-1]["flops"],
        "checkpoints": checkpoints,
    }
    write_json(job.work_folder / COST, cost)
