"""Groups prompts into batches under a token budget, longest first. Loads no torch."""

from collections.abc import Hashable, Sequence


def plan_batches(
    prompt_tokens: Sequence[int],
    images: Sequence[Hashable],
    max_new_tokens: int,
    batch_tokens: int,
) -> list[list[int]]:
    """Assign rows to batches of at most `batch_tokens` tokens, padding included.

    A batch of n rows costs n x (its longest prompt + `max_new_tokens`). Rows of one image stay in
    one batch, so that the image is encoded once, unless they exceed the budget together. The
    longest prompts come first, so that a budget too large for the device fails in the first batch.
    A row that exceeds the budget alone gets a batch of its own.

    Args:
        prompt_tokens: (n,) prompt length of each row, image tokens included.
        images: (n,) an identifier of each row's image.

    Returns:
        Row numbers of each batch.

    Example: tokens 40, 30, 30, 20 of images a, b, b, c, 10 new tokens, budget 100: a batch with the
        row of 40 holds two rows, so b's two rows do not fit next to it -> [[0], [1, 2], [3]]
    """
    batches: list[list[int]] = []
    free_rows = 0  # rows that the last batch can still take
    for rows in _rows_by_image(prompt_tokens, images):
        longest = max(prompt_tokens[row] for row in rows)
        max_rows = max(1, batch_tokens // (longest + max_new_tokens))
        for start in range(0, len(rows), max_rows):
            chunk = rows[start : start + max_rows]
            if len(chunk) > free_rows:
                batches.append([])
                free_rows = max_rows
            batches[-1].extend(chunk)
            free_rows -= len(chunk)
    return batches


def _rows_by_image(prompt_tokens: Sequence[int], images: Sequence[Hashable]) -> list[list[int]]:
    """The rows of each image, the image with the longest prompt first; ties keep row order."""
    rows_of: dict[Hashable, list[int]] = {}
    for row, image in enumerate(images):
        rows_of.setdefault(image, []).append(row)
    return sorted(rows_of.values(), key=lambda rows: -max(prompt_tokens[row] for row in rows))
