"""The seconds that a training takes, over all its attempts."""

import time
from pathlib import Path

from transformers import TrainerCallback

from vlm_r1.files import write_text


class Stopwatch(TrainerCallback):
    """Seconds of a training over all its attempts; of a killed one up to its last log line.

    Args:
        path: keeps the seconds for the next attempt.
        started: `time.monotonic()` when this attempt began.
    """

    def __init__(self, path: Path, started: float) -> None:
        self._path = path
        self._earlier = float(path.read_text(encoding="utf-8")) if path.exists() else 0.0
        self._started = started

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return self._earlier + time.monotonic() - self._started

    def go_on_from(self, seconds: float) -> None:
        """Count at least the seconds that earlier attempts had taken up to a checkpoint."""
        self._earlier = max(self._earlier, seconds)

    def on_log(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer on every log."""
        if state.is_world_process_zero:
            write_text(self._path, f"{self.seconds:.1f}")

    def forget(self) -> None:
        """Remove the file, once training has ended."""
        self._path.unlink(missing_ok=True)
