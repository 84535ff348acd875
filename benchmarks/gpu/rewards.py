"""A reward that answers of random weights earn differently, so that GRPO has a gradient."""

from typing import Any


def even_tokens(
    prompts: list[Any], completions: list[Any], completion_ids: list[list[int]], **columns: Any
) -> list[float]:
    """The share of even token ids in each completion."""
    return [sum(token % 2 == 0 for token in ids) / max(1, len(ids)) for ids in completion_ids]
