"""A reward of your own: does the center of the answered box lie inside the true box?

Easier to earn than IoU, because the box may have any size. Named in params.yaml as
`examples/own_reward/pointing.py:pointing` (README.md beside this file).
"""

from vlm_r1.rec.parsing import box_in_original, parse_answer

COORDINATE_SPACE = "input"  # task.coordinate_space of params.yaml


def pointing(prompts, completions, completion_ids, true_box, image_size, input_size, **columns):
    """1 for a center inside the true box, 0 outside or where no box can be read.

    One value per completion; boxes are xyxy in original pixels, sizes (height, width).

    Example: true box (0, 0, 10, 10), answered (4, 4, 30, 8): center (17, 6) -> 0
    """
    rewards = []
    for completion, true, image, resized in zip(
        completions, true_box, image_size, input_size, strict=True
    ):
        answer = parse_answer(completion[0]["content"], COORDINATE_SPACE)
        x1, y1, x2, y2 = box_in_original(answer, image, resized)  # NaN without a box
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        rewards.append(float(true[0] <= x <= true[2] and true[1] <= y <= true[3]))
    return rewards
