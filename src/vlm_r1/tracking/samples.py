"""The sampled completions of a GRPO training as one table with images."""

import json
import logging
from pathlib import Path

import pandas as pd
from PIL import Image

from vlm_r1 import paths
from vlm_r1.data.images import draw_boxes, open_image
from vlm_r1.tracking.runs import RunContext

SAMPLES_PER_STEP = 16  # rows shown; the files keep all (2 records, 8 completions each)
IMAGE_PX = 256  # longer side of an image in the table
TRUE_COLOR, ANSWER_COLOR = "lime", "red"

logger = logging.getLogger(__name__)


def log_samples(context: RunContext, run_id: str) -> None:
    """Log the first completions of every sampled step as one table, `samples.json`.

    It has a column of images only if all are there: MLflow accepts no gap in such a column.
    """
    import mlflow

    rows = [
        {"step": paths.step_of(file), **sample}
        for file in sorted((context.files / "samples").glob("step-*.json"), key=paths.step_of)
        for sample in json.loads(file.read_text(encoding="utf-8"))[:SAMPLES_PER_STEP]
    ]
    if not rows:
        return
    table = pd.DataFrame(rows)
    images = [context.root / row["image"] for row in rows]
    missing = [path for path in images if not path.is_file()]
    if missing:
        logger.warning(
            "samples.json has no images: %d files are missing (%s)", len(missing), missing[0]
        )
    else:
        drawn = [
            mlflow.Image(draw_sample(path, row["true_box"], row["box"]))
            for path, row in zip(images, rows, strict=True)
        ]
        table.insert(1, "drawn_image", drawn)
    context.client.log_table(run_id, table, "samples.json")


def draw_sample(path: Path, true_box_px: list[float], box_px: list[float] | None) -> Image.Image:
    """The image with its true box (green) and the answered box (red), scaled down for the table.

    Args:
        true_box_px, box_px: xyxy in original pixels.
    """
    image = open_image(path)
    boxes = ((true_box_px, TRUE_COLOR), (box_px, ANSWER_COLOR))
    draw_boxes(image, boxes, width_px=max(1, max(image.size) // 100))
    image.thumbnail((IMAGE_PX, IMAGE_PX))
    return image
