"""SFT: params -> TRL's arguments, records -> rows, and TRL's trainer for them."""

from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from trl import SFTConfig

from vlm_r1.config import Params, Task
from vlm_r1.data.records import true_objects
from vlm_r1.models.families import QWEN2_5_VL, Family
from vlm_r1.rec import prompts
from vlm_r1.rec.boxes import from_original
from vlm_r1.rec.objects import boxes_of
from vlm_r1.training import run
from vlm_r1.training.arguments import accumulation_steps, shared_arguments
from vlm_r1.training.callbacks import Listener, ignore
from vlm_r1.training.dataset import input_sizes, prompt_columns, to_dataset
from vlm_r1.training.job import TrainingJob
from vlm_r1.training.trainers import ResumableSFTTrainer


def train(job: TrainingJob, listener: Listener = ignore) -> None:
    """Fine-tune the base on the true boxes; see `run.train` for what it leaves and raises."""
    run.train(job, run.TrainerFactory(sft_arguments, _make_trainer), listener)


def sft_arguments(params: Params, output: Path, processes: int = 1) -> SFTConfig:
    """TRL's SFT arguments: `prompts_per_step` rows an optimizer step, in the order of the rows.

    Raises:
        ConfigError: a step does not split into whole micro-batches.
    """
    return SFTConfig(
        **shared_arguments(params, params.sft, output),
        gradient_accumulation_steps=accumulation_steps(
            params.train.prompts_per_step, params.sft.micro_batch, processes, "sft"
        ),
        dataloader_num_workers=params.train.workers,  # processes that open and process rows ahead
        train_sampling_strategy="sequential",  # rows are shuffled already (training_order)
        max_length=None,  # truncation would cut image tokens
    )


def sft_rows(
    records: pd.DataFrame, images: Path, task: Task, family: Family = QWEN2_5_VL
) -> datasets.Dataset:
    """Columns prompt, image, completion: the question, and VLM-R1's fenced JSON of true boxes.

    Args:
        records: in training order; boxes in original pixels.
        images: the folder that the records' image paths are relative to.
    """
    columns = prompt_columns(records, images, task.prompts.sft)
    columns["completion"] = [
        [{"role": "assistant", "content": prompts.boxes_answer(boxes)}]
        for boxes in _taught_boxes(records, task, family)
    ]
    return to_dataset(columns)


def _taught_boxes(
    records: pd.DataFrame, task: Task, family: Family
) -> list[list[tuple[list[float], str]]]:
    """Each record's true (box, label) as the model should write them, in the task's coordinates.

    Whole numbers, except in the 0-1 space, where boxes are rounded to thousandths.
    """
    objects = true_objects(records)
    sizes = records[["height", "width"]].to_numpy(), input_sizes(records, task, family)
    record_of = np.repeat(np.arange(len(objects)), [len(own) for own in objects])
    boxes = from_original(
        np.concatenate([boxes_of(own) for own in objects]),
        task.coordinate_space,
        *(size[record_of] for size in sizes),
    )
    rounded = np.round(boxes, 3) if task.coordinate_space == "unit" else np.round(boxes).astype(int)
    written = iter(rounded.tolist())
    return [[(next(written), label) for _, label in own] for own in objects]


def _make_trainer(prepared: run.Prepared) -> ResumableSFTTrainer:
    job = prepared.job
    rows = sft_rows(prepared.records, job.images, job.params.task, prepared.family)
    return ResumableSFTTrainer(train_dataset=rows, **prepared.trainer_options())
