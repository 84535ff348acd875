"""The functions of an exported lmms-eval task: what a model is asked, and how its text is scored.

`vlm-r1 export lmms-eval` copies this module and all it imports into the task's folder, unchanged,
so that lmms-eval, which has an environment of its own, reads images, parses answers and scores
boxes by the same code. A `doc` is one line of the task's JSONL file (export/lmms_eval.py).
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlm_r1.data.images import open_image
from vlm_r1.rec.boxes import iou, is_hit
from vlm_r1.rec.parsing import box_in_original, parse_answer

STOP = "</answer>"  # our own generation ends there, the parser reads nothing after it

DOC_FIELDS = (  # of a doc, that its row in the sample log has too
    "question",
    "ground_truth",
    "image",
    "record_id",
    "image_size",
    "input_size",
    "coordinate_space",  # of the answer's text; `extracted_answer` is in original pixels
)


def doc_to_visual(doc: dict[str, Any]) -> list[Image.Image]:
    """The record's image, upright, as RGB."""
    return [open_image(Path(doc["image_file"]))]


def doc_to_text(doc: dict[str, Any]) -> str:
    """The user turn: the question in its template."""
    return str(doc["prompt"])


def doc_to_target(doc: dict[str, Any]) -> list[float]:
    """The true box: xyxy, original pixels."""
    return list(doc["ground_truth"])


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """Score one answer.

    Returns:
        The row's metrics (0 or 1, IoU in 0-1, 0 or 1), and the row itself as `vlm_r1_row`, with the
        names of our result files. It has no aggregation: lmms-eval only writes it into the sample
        log.
    """
    text = until_stop(results[0])
    box = box_in_original(
        parse_answer(text, doc["coordinate_space"]), doc["image_size"], doc["input_size"]
    )
    parsed = not np.isnan(box).any()
    overlap = float(iou(box, np.array(doc["ground_truth"])))
    hit = int(is_hit(overlap))
    row = {name: doc[name] for name in DOC_FIELDS}
    row |= {"model_output": text, "extracted_answer": box.tolist() if parsed else None}
    return {
        "vlm_r1_accuracy": hit,
        "vlm_r1_mean_iou": overlap,
        "vlm_r1_parse_rate": int(parsed),
        "vlm_r1_row": row | {"correct": hit},
    }


def until_stop(text: str) -> str:
    """The text up to the end of its first answer tag, as our own generation stops there."""
    before, stop, _ = text.partition(STOP)
    return before + stop
