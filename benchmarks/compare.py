"""What benchmarks share: ratios of medians of interleaved rounds, and their last lines."""

import json
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Figure(NamedTuple):
    """How much of the baseline's time or memory ours takes, or how many times faster it is.

    Attributes:
        ratio: of the medians of all rounds; `low` and `high` of single rounds.
    """

    name: str
    ratio: float
    low: float
    high: float

    def line(self) -> str:
        """As the last lines of a benchmark: JSON that `python -m benchmarks` reads."""
        return json.dumps(
            {"name": self.name}
            | {key: round(value, 3) for key, value in self._asdict().items() if key != "name"}
        )


def figure(name: str, ours: Sequence[float], baseline: Sequence[float]) -> Figure:
    """ours / baseline; round i of one was measured right after round i of the other.

    Example: ours 1 2 3, baseline 2 2 4 -> ratio 2/2, of single rounds 0.5 to 1
    """
    rounds = [a / b for a, b in zip(ours, baseline, strict=True)]
    return Figure(name, median(ours) / median(baseline), min(rounds), max(rounds))
