"""Records in training order, as the columns that both methods' datasets share."""

import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd

from vlm_r1.config import Task
from vlm_r1.data.images import open_image
from vlm_r1.data.records import detects
from vlm_r1.models.families import Family
from vlm_r1.rec import prompts

Columns = dict[str, list[Any]]


def training_order(records: int, needed: int, seed: int) -> np.ndarray:
    """Indices (needed,) into `records` rows: shuffled passes over all rows, one after the other.

    SFT and GRPO read rows in exactly this order, so step k sees the same prompts in both.
    """
    rng = np.random.default_rng(seed)
    passes = math.ceil(needed / records)
    return np.concatenate([rng.permutation(records) for _ in range(passes)])[:needed]


def prompt_columns(records: pd.DataFrame, images: Path, template: str) -> Columns:
    """Columns prompt (as a chat) and image (as a path).

    Args:
        images: the folder that the records' image paths are relative to.
        template: name of a prompt template in rec/prompts.py.
    """
    asked = zip(records["expression"], detects(records), strict=True)
    questions = [prompts.question_for(expression, detected) for expression, detected in asked]
    return {
        "prompt": [
            [{"role": "user", "content": prompts.fill_template(template, q)}] for q in questions
        ],
        "image": [str(images / name) for name in records["image"]],
    }


def to_dataset(columns: Columns) -> datasets.Dataset:
    """The columns as a dataset that opens an image when its row is read: COCO exceeds memory.

    `datasets.Image` would decode differently: it drops alpha and clips 16-bit images.
    """
    return datasets.Dataset.from_dict(columns).with_transform(_with_open_images)


def input_sizes(records: pd.DataFrame, task: Task, family: Family) -> np.ndarray:
    """Image sizes (n, 2) as (height, width) after the processor's resize."""
    sizes = records[["height", "width"]].to_numpy()
    return np.array([family.input_size(int(h), int(w), task) for h, w in sizes])


def _with_open_images(rows: dict[str, Any]) -> dict[str, Any]:
    """Rows with each image opened; `datasets` also asks for rows of other columns alone."""
    if "image" not in rows:
        return rows
    return rows | {"image": [open_image(Path(file)) for file in rows["image"]]}
