"""How much longer four times the text takes: 4 where time is linear, 16 where it is quadratic."""

import time
from collections.abc import Callable
from itertools import pairwise

ADVERSARIES = {
    "brackets": "[",
    "braces": "{[",
    "begun boxes": "[1,",
    "spaced boxes": "[1, 2, 3, ",
    "spaces": "[  ",
    "thoughts": "<think>",
    "closed thoughts": "</think>",
    "answers": "<answer>",
    "answers on lines": "<answer>\n",
    "digits": "7",
    "number": "[1" + "7" * 50,
    "decimals": ".7",
    "minus": "[-",
    "tagged boxes": "<answer>{[1, 2, 3, 4]}",
}
SIZES = (15_625, 62_500, 250_000, 1_000_000)  # up to 1 MB, each four times the one before
LINEAR = 9  # between linear and quadratic; short runs are noisy
SHORT_S = 0.005  # below it the clock tells nothing


def slowdown(read: Callable[[str], object], piece: str, wrap: str = "{}") -> float:
    """The largest factor between `SIZES` of `piece`; what is not linear ends at the first.

    Args:
        wrap: what stands around the pieces, in place of its "{}".
    """
    worst = 0.0
    times = (_seconds(read, wrap.replace("{}", piece * (size // len(piece)))) for size in SIZES)
    for shorter, longer in pairwise(times):
        worst = max(worst, longer / shorter)
        if worst >= LINEAR:
            break
    return worst


def _seconds(read: Callable[[str], object], text: str) -> float:
    """Processor time, best of three; one is enough where it is long."""
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        read(text)
        best = min(best, time.process_time() - started)
        if best > 1:
            break
    return max(SHORT_S, best)
