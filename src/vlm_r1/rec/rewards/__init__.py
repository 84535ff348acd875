"""GRPO's rewards: pure functions of a batch of completions and its true boxes, without torch.

Each takes a `Batch` and returns one number per completion: the lowest of its range where the
answer is wrong or cannot be read, None where there is nothing to judge it by. `grpo.rewards` in
params names and weighs them; a custom function stands there as `file.py:function` (custom.py).
docs/training.md has the formulas. The default, soft IoU and format, is VLM-R1's since March 2025
(commit 5faf4b1): it ranks two wrong boxes, so a group of near misses still has a gradient.
`iou_hard` is VLM-R1's of February 2025.
"""

from collections.abc import Callable, Sequence

from vlm_r1.rec.reward_names import BOX_REWARDS
from vlm_r1.rec.rewards import multi_box, single_box, text
from vlm_r1.rec.rewards.batch import Batch

Reward = Callable[[Batch], list[float | None]]

REWARDS: dict[str, Reward] = {
    "iou": single_box.iou,
    "iou_hard": single_box.iou_hard,
    "giou": single_box.giou,
    "center": single_box.center,
    "format": text.format_,
    "length": text.length,
    "repetition": text.repetition,
    "map": multi_box.map_,
    "odlength": multi_box.odlength,
}


def only_named(
    name: str, values: list[float | None], accuracy_rewards: Sequence[str]
) -> list[float | None]:
    """The values of the reward `name`, None for each row that names another one as its accuracy.

    Rows are judged by every reward that compares no boxes, and "" names all that do.

    Args:
        accuracy_rewards: (n,) the name of each row's accuracy reward, or "".

    Example: "iou", [0.5, 0.5], ["iou", "map"] -> [0.5, None]; "format", [1, 1] -> [1, 1]
    """
    named = zip(values, accuracy_rewards, strict=True)
    compares = name in BOX_REWARDS
    return [value if own in ("", name) or not compares else None for value, own in named]
