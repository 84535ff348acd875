"""GRPO's rewards: pure functions of a completion's text and a true box. No torch, no pictures.

Default is the soft IoU (VLM-R1 since March 2025, commit 5faf4b1): it ranks two wrong boxes, so a
group of eight near misses still has a gradient. `hard` is the reward of February 2025.
"""

import re

import numpy as np

from vlm_r1.answers import box_in_original, parse_answer
from vlm_r1.boxes import IOU_THRESHOLD, iou

# A thought, then answer tags around a JSON object with four integers (VLM-R1, REC task).
_R1_FORMAT = re.compile(
    r"<think>.*?</think>\s*<answer>.*?\{.*\[\d+,\s*\d+,\s*\d+,\s*\d+\].*\}.*?</answer>", re.DOTALL
)
MAX_FORMAT_CHARACTERS = 10_000  # beyond it the pattern's backtracking costs more than it tells


def format_reward(completion: str) -> float:
    """1.0 if `completion` is a thought followed by a tagged JSON box, else 0.0.

    Example: "<think>left</think><answer>{"bbox_2d": [1, 2, 3, 4]}</answer>" -> 1.0
    """
    if len(completion) > MAX_FORMAT_CHARACTERS:
        return 0.0
    return float(_R1_FORMAT.search(completion) is not None)


def iou_reward(
    completion: str,
    true_box: tuple[float, ...],
    frame: str,
    image_size: tuple[int, int],
    input_size: tuple[int, int],
) -> float:
    """IoU of the answered box with `true_box` (0-1); 0.0 where no box can be read.

    Args:
        true_box: xyxy, original pixels.
        frame: the frame the model speaks in.
        image_size, input_size: (height, width) before and after the processor's resize.

    Example: answer [0, 0, 10, 10], truth (0, 0, 10, 5), no resize -> 0.5
    """
    box = box_in_original(parse_answer(completion, frame), image_size, input_size)
    return float(iou(box, np.array(true_box)))


def hard_iou_reward(soft: float) -> float:
    """1.0 where the soft reward is above the hit threshold (0.5), else 0.0."""
    return float(soft > IOU_THRESHOLD)
