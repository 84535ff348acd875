"""GRPO's rewards: pure functions of a batch of completions and its true boxes. Text and numpy only.

Each takes a `Batch` and gives one number a completion: 0 (or the least) where the answer is wrong
or cannot be read, None where there is nothing to judge it by. `grpo.rewards` names and weighs
them; a function of one's own stands there as `file.py:function` (rewards/custom.py). The formulas
are in docs/training.md. The default, soft IoU and format, is VLM-R1's since March 2025 (commit
5faf4b1): it ranks two wrong boxes, so a group of near misses still has a gradient. `iou_hard` is
February's.
"""

from collections.abc import Callable

from vlm_r1.rec.rewards import multi_box as several_boxes
from vlm_r1.rec.rewards import single_box as one_box
from vlm_r1.rec.rewards import text
from vlm_r1.rec.rewards.batch import Batch

Reward = Callable[[Batch], list[float | None]]

REWARDS: dict[str, Reward] = {
    "iou": one_box.iou,
    "iou_hard": one_box.iou_hard,
    "giou": one_box.giou,
    "center": one_box.center,
    "format": text.format_,
    "length": text.length,
    "repetition": text.repetition,
    "map": several_boxes.map_,
    "odlength": several_boxes.odlength,
}
