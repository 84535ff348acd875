"""VLM-R1's sampling strategies: all, first:N, end:N or random:N rows of a file."""

import math
import re

import numpy as np

from vlm_r1.data.readers.base import ReadResult, unusable

STRATEGY = re.compile(r"(?P<which>first|end|random):(?P<count>\d+)(?P<percent>%?)")
NEED = "all, first:N, end:N or random:N; N a number of rows of the file, or a percentage as 10%"


def sample_rows(result: ReadResult, strategy: str, seed: list[int], where: str) -> ReadResult:
    """The rows that the strategy selects, in the file's order.

    Args:
        where: names the file in messages.

    Raises:
        DataError: it is no strategy, or asks for more rows than there are.
    """
    if strategy == "all":
        return result
    records, unread = result.records, result.unread
    rows = np.unique(np.concatenate([records["row"], unread["row"]])).astype(int)
    which, count = _parse_strategy(strategy, len(rows), where)
    if which == "first":
        selected = rows[:count]
    elif which == "end":
        selected = rows[-count:]
    else:
        selected = np.random.default_rng(seed).choice(rows, count, replace=False)
    return ReadResult(
        records[records["row"].isin(selected)].reset_index(drop=True),
        unread[unread["row"].isin(selected)].reset_index(drop=True),
    )


def _parse_strategy(strategy: str, rows: int, where: str) -> tuple[str, int]:
    """(first, end or random; number of rows). Percentages are rounded up, as in VLM-R1."""
    match = STRATEGY.fullmatch(strategy)
    if match is None:
        raise unusable(where, f"sampling_strategy {strategy!r}", NEED)
    count = int(match["count"])
    if match["percent"]:
        count = math.ceil(rows * count / 100)
    if not 1 <= count <= rows:
        raise unusable(where, f"sampling_strategy {strategy!r} of {rows} rows", NEED)
    return match["which"], count
