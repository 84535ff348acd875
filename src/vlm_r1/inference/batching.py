"""Which questions are answered together: by a budget of tokens, longest first. Loads no torch."""

from collections.abc import Hashable, Sequence


def plan_batches(
    prompt_tokens: Sequence[int],
    images: Sequence[Hashable],
    max_new_tokens: int,
    batch_tokens: int,
) -> list[list[int]]:
    """Row numbers in batches that stay within a budget.

    A batch of n rows takes n x (its longest prompt + `max_new_tokens`) tokens: padding is paid for.
    The phrases of one image stay together, so that it is encoded once; only an image with more
    phrases than a batch holds is divided. The longest come first, so that a budget too large for
    the device fails at once. A row above the budget gets a batch of its own.

    Args:
        prompt_tokens: (n,) tokens of each row's prompt, its image's included.
        images: (n,) what names each row's image.

    Example: tokens 40, 30, 30, 20 of images a, b, b, c, 10 new tokens, budget 100: two rows fit
        beside a row of 40; b's two do not fit beside a's one -> [[0], [1, 2], [3]]
    """
    batches: list[list[int]] = []
    room = 0  # rows that the last batch can still take
    for rows in _by_image(prompt_tokens, images):
        longest = max(prompt_tokens[row] for row in rows)
        fit = max(1, batch_tokens // (longest + max_new_tokens))
        for start in range(0, len(rows), fit):
            part = rows[start : start + fit]
            if len(part) > room:
                batches.append([])
                room = fit
            batches[-1].extend(part)
            room -= len(part)
    return batches


def _by_image(prompt_tokens: Sequence[int], images: Sequence[Hashable]) -> list[list[int]]:
    """The rows of each image; images with the longest prompt first, equals in row order."""
    rows_of: dict[Hashable, list[int]] = {}
    for row, image in enumerate(images):
        rows_of.setdefault(image, []).append(row)
    return sorted(rows_of.values(), key=lambda rows: -max(prompt_tokens[row] for row in rows))
