"""Monitors a training: checks every logged line, warns, and can stop the training.

A check compares one logged quantity with a threshold of the params' section `health`. It alarms
after `patience` consecutive bad lines; NaN or infinity alarms immediately. Lines without a check's
quantity are skipped (SFT logs fewer, and so do steps within a rollout). An alarm is a warning, and
`health/<check>` = 1 in the logged line, so that MLflow shows it too.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback

from vlm_r1.config.training import Health
from vlm_r1.errors import HealthError
from vlm_r1.rec.reward_names import BOX_REWARDS

Line = dict[str, Any]
Check = Callable[[Health, Line, Line], str | None]  # (thresholds, first line, line) -> fault

logger = logging.getLogger(__name__)


def numbers(health: Health, first: Line, line: Line) -> str | None:
    """NaN or infinity in loss or gradient norm: the weights cannot recover."""
    for name in ("loss", "grad_norm"):
        if not math.isfinite(line.get(name, 0.0)):
            return f"{name} is {line[name]}"
    return None


def reward_std(health: Health, first: Line, line: Line) -> str | None:
    """All completions get the same reward, so there is no advantage to learn from."""
    return _below(line, "reward_std", health.min_reward_std)


def equal_groups(health: Health, first: Line, line: Line) -> str | None:
    """Groups whose completions all get the same reward give no gradient."""
    return _above(line, "frac_reward_zero_std", health.max_equal_groups)


def kl(health: Health, first: Line, line: Line) -> str | None:
    """The policy drifts away from the base."""
    return _above(line, "kl", health.max_kl)


def length(health: Health, first: Line, line: Line) -> str | None:
    """Completions have grown or shrunk by more than a factor since the first line."""
    name, limit = "completions/mean_length", health.max_length_drift
    if limit is None or not (name in line and first.get(name)):
        return None
    factor = line[name] / first[name]
    if 1 / limit <= factor <= limit:
        return None
    return f"{name} went from {first[name]:.4g} to {line[name]:.4g}, over {limit:g} times"


def format_only(health: Health, first: Line, line: Line) -> str | None:
    """The format reward rises and no box reward does: the form is learned, not the task."""
    limit, format_gain = health.max_format_only_gain, _gain("format", first, line)
    gains = {name: gain for name in BOX_REWARDS if (gain := _gain(name, first, line)) is not None}
    if limit is None or format_gain is None or not gains:
        return None
    if format_gain <= limit or max(gains.values()) > 0:
        return None
    name, gain = max(gains.items(), key=lambda item: item[1])
    return f"since the first line, format has gained {format_gain:.3f} and {name} {gain:.3f}"


def parse_rate(health: Health, first: Line, line: Line) -> str | None:
    """Few completions hold a box, so the box rewards say little."""
    return _below(line, "parse_rate", health.min_parse_rate)


CHECKS: dict[Check, str] = {  # check -> the quantity that a line must have
    numbers: "loss",
    reward_std: "reward_std",
    equal_groups: "frac_reward_zero_std",
    kl: "kl",
    length: "completions/mean_length",
    format_only: "rewards/format/mean",
    parse_rate: "parse_rate",
}


@dataclass
class HealthMonitor(TrainerCallback):
    """Checks every line; add it before `LogFile`, which then writes `health/<check>` too.

    Args:
        earlier: log lines of the attempt that this one continues.
    """

    health: Health
    earlier: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._first: Line = {}
        self._bad_lines = {check.__name__: 0 for check in CHECKS}  # consecutive
        self._stopped_by: str | None = None
        for line in self.earlier:
            self._faults(line)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Called by the Trainer on every log, in every process."""
        if not logs or "loss" not in logs:
            return
        line = {k: v for k, v in logs.items() if isinstance(v, int | float)}
        for name, fault in self._faults(line).items():
            logs[f"health/{name}"] = 1.0
            if self._bad_lines[name] == self._patience(name) and state.is_world_process_zero:
                logger.warning("health: step %d: %s (%s)", state.global_step, fault, name)
            if self.health.on_alarm == "stop":
                self._stopped_by = f"{name} at step {state.global_step}: {fault}"
                control.should_training_stop = True

    def require_health(self) -> None:
        """Call after training.

        Raises:
            HealthError: an alarm has stopped the training.
        """
        if self._stopped_by is not None:
            raise HealthError(
                got=f"a training stopped by its health checks: {self._stopped_by}",
                need="quantities within the thresholds of params' section `health`",
                because="health.on_alarm is stop: further steps would waste time",
                do="look at training_log.jsonl and samples/; then change what is trained, or set "
                "health.on_alarm: warn and start again, which continues from the last checkpoint",
            )

    def _faults(self, line: Line) -> dict[str, str]:
        """Checks that alarm on this line, and what each found."""
        self._first = self._first or line
        alarms = {}
        for check, quantity in CHECKS.items():
            if quantity not in line:
                continue
            name, fault = check.__name__, check(self.health, self._first, line)
            self._bad_lines[name] = self._bad_lines[name] + 1 if fault else 0
            if fault and self._bad_lines[name] >= self._patience(name):
                alarms[name] = fault
        return alarms

    def _patience(self, name: str) -> int:
        return 1 if name == numbers.__name__ else self.health.patience


def _above(line: Line, name: str, limit: float | None) -> str | None:
    bad = limit is not None and line.get(name, limit) > limit
    return f"{name} {line[name]:.4g} is above {limit:g}" if bad else None


def _below(line: Line, name: str, limit: float | None) -> str | None:
    bad = limit is not None and line.get(name, limit) < limit
    return f"{name} {line[name]:.4g} is below {limit:g}" if bad else None


def _gain(reward: str, first: Line, line: Line) -> float | None:
    """Change of a reward's mean since the first line; None if it is not logged."""
    name = f"rewards/{reward}/mean"
    return line[name] - first[name] if name in line and name in first else None
