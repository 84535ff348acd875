"""Reads a training log: the quantities whose curves the report shows."""

import json
import math
from pathlib import Path
from typing import Any

from vlm_r1.errors import ResultError
from vlm_r1.report.schema import TrainingLog

# TRL's names -> labels, in the order shown. A log holds those that its method has.
QUANTITIES = {
    "loss": "loss",
    "reward": "reward",
    "reward_std": "spread of rewards in a group",
    "rewards/iou/mean": "IoU reward",
    "rewards/format/mean": "format reward",
    "kl": "KL from the base",
    "entropy": "entropy of tokens",
    "completions/mean_length": "tokens in a completion",
    "mean_token_accuracy": "accuracy of tokens",
    "grad_norm": "norm of the gradient",
}
MOST_POINTS = 200  # of longer curves every k-th point is shown, and the last


def read_training_log(path: Path, method: str) -> TrainingLog:
    """The curves in training_log.jsonl, one line per logged step.

    If the file is missing or too short for a curve, `reason` says so.

    Raises:
        ResultError: a line is not a JSON object with a step.
    """
    if not path.exists():
        return TrainingLog(method=method, quantities={}, reason=f"no {path.name}")
    rows = [
        _read_line(line, f"{path.name} of {method}: line {number}")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    ]
    curves = {name: _curve(rows, name) for name in QUANTITIES}
    found = {name: curve for name, curve in curves.items() if len(curve) > 1}
    reason = None if found else f"{path.name} has no quantity at two steps"
    return TrainingLog(method=method, quantities=found, reason=reason)


def _curve(rows: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    points = [
        (row["step"], float(row[name]))
        for row in rows
        if isinstance(row.get(name), int | float) and math.isfinite(row[name])
    ]
    every = math.ceil(len(points) / MOST_POINTS)
    return points if every < 2 else [*points[:-1:every], points[-1]]


def _read_line(line: str, where: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
        if isinstance(row["step"], int):
            return row
    except (ValueError, KeyError, TypeError):
        pass
    raise ResultError(
        got=f"{where}: {line[:60]!r}",
        need='one JSON object per line, {"step": 5, "loss": 0.7, ...}',
        because="a curve with missing points would look complete",
        do="`dvc checkout`, or train again",
    )
