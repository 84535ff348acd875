"""What a trainer reads: the records in the one order both methods train in, as TRL's columns."""

import math
from pathlib import Path

import datasets
import numpy as np
import pandas as pd

from vlm_r1.config import Params
from vlm_r1.data.images import open_image
from vlm_r1.data.records import BOX
from vlm_r1.models.families import QWEN2_5_VL, Family
from vlm_r1.rec import prompts
from vlm_r1.rec.boxes import from_original


def training_order(records: int, needed: int, seed: int) -> np.ndarray:
    """Indices (needed,) into `records` rows: whole shuffled passes, one after the other.

    SFT and GRPO read rows in exactly this order, so step k sees the same prompts in both.
    """
    rng = np.random.default_rng(seed)
    passes = math.ceil(needed / records)
    return np.concatenate([rng.permutation(records) for _ in range(passes)])[:needed]


def sft_rows(
    records: pd.DataFrame, images: Path, params: Params, family: Family = QWEN2_5_VL
) -> datasets.Dataset:
    """Columns prompt, completion, image: the plain question and VLM-R1's fenced JSON box.

    Args:
        records: in training order; boxes in original pixels.
        images: the folder the records' images are relative to.
    """
    columns = _shared_columns(records, images, params, params.task.prompts.sft)
    spoken = _spoken_boxes(records, params, family)
    columns["completion"] = [
        [{"role": "assistant", "content": prompts.box_answer(box, phrase)}]
        for box, phrase in zip(spoken, records["expression"], strict=True)
    ]
    return _with_images(columns)


def grpo_rows(
    records: pd.DataFrame, images: Path, params: Params, family: Family = QWEN2_5_VL
) -> datasets.Dataset:
    """Columns prompt, image, and what the rewards need: true_box, image_size, input_size."""
    columns = _shared_columns(records, images, params, params.task.prompts.grpo)
    columns["record_id"] = records["record_id"].astype(str).tolist()
    columns["expression"] = records["expression"].tolist()
    columns["true_box"] = records[BOX].to_numpy(dtype=float).tolist()
    columns["image_size"] = records[["height", "width"]].to_numpy().tolist()
    columns["input_size"] = _input_sizes(records, params, family).tolist()
    # relative to the project, so that the tables of samples are the same on every machine
    folder = params.datasets[params.train_dataset].images
    columns["image_path"] = [f"{folder}/{name}" for name in records["image"]]
    return _with_images(columns)


def _shared_columns(records: pd.DataFrame, images: Path, params: Params, template: str) -> dict:
    questions = [prompts.question_for(phrase) for phrase in records["expression"]]
    return {
        "prompt": [
            [{"role": "user", "content": prompts.fill_template(template, q)}] for q in questions
        ],
        "image": [str(images / name) for name in records["image"]],
    }


def _with_images(columns: dict) -> datasets.Dataset:
    """Images stay paths until a row is read: COCO does not fit in memory.

    `datasets.Image` would open them in its own way (alpha dropped, 16 bits clipped).
    """
    return datasets.Dataset.from_dict(columns).with_transform(_with_open_images)


def _with_open_images(rows: dict) -> dict:
    """Rows, or some of their columns, with each image as `open_image` loads it."""
    if "image" not in rows:
        return rows
    return rows | {"image": [open_image(Path(file)) for file in rows["image"]]}


def _input_sizes(records: pd.DataFrame, params: Params, family: Family) -> np.ndarray:
    """(n, 2) as (height, width) after the processor's resize."""
    sizes = records[["height", "width"]].to_numpy()
    return np.array([family.input_size(int(h), int(w), params.task) for h, w in sizes])


def _spoken_boxes(records: pd.DataFrame, params: Params, family: Family) -> list[tuple]:
    """Boxes as the model should say them, in the task's coordinate space: whole numbers, or thousandths."""
    boxes = records[BOX].to_numpy(dtype=float)
    sizes = records[["height", "width"]].to_numpy()
    spoken = from_original(
        boxes, params.task.coordinate_space, sizes, _input_sizes(records, params, family)
    )
    if params.task.coordinate_space == "unit":
        return [tuple(row) for row in np.round(spoken, 3).tolist()]
    return [tuple(row) for row in np.round(spoken).astype(int).tolist()]
