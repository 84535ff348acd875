"""What happens beside a training: log file, progress lines, its seconds, contracts."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from vlm_r1.rec.contract import TrainingContract
from vlm_r1.training.resume import read_log

logger = logging.getLogger(__name__)

Listener = Callable[[dict[str, Any]], None]
SHOWN = ("loss", "reward", "reward_std", "kl", "rewards/iou/mean", "rewards/format/mean")


class LogFile(TrainerCallback):
    """Appends every logged quantity to `training_log.jsonl` and shows the main ones as a line.

    Args:
        listener: is handed every line, also those of an earlier attempt; must not wait.
    """

    def __init__(self, path: Path, listener: Listener) -> None:
        self._path = path
        self._tell = listener

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer before the first step."""
        if state.is_world_process_zero:
            for line in read_log(self._path):
                self._tell(line)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer before it logs and saves.

        A checkpoint ends a logged interval: what TRL collects between two lines is not in it.
        """
        control.should_log |= control.should_save

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Called by the Trainer on every log; its last one tells of one attempt, see cost.json."""
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        numbers = {k: v for k, v in logs.items() if isinstance(v, int | float)}
        line = {"step": state.global_step, **numbers}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self._tell(line)
        shown = "  ".join(f"{name} {numbers[name]:.3f}" for name in SHOWN if name in numbers)
        logger.info("step %d/%d  %s", state.global_step, state.max_steps, shown)


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

    def on_log(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer on every log."""
        if state.is_world_process_zero:
            part = self._path.with_name(self._path.name + ".part")
            part.write_text(f"{self.seconds:.1f}\n", encoding="utf-8")
            part.replace(self._path)

    def forget(self) -> None:
        """Remove the file: the training has ended."""
        self._path.unlink(missing_ok=True)


class WriteContract(TrainerCallback):
    """Puts `contract.json` into every checkpoint, whole and last: who sees it sees a whole one."""

    def __init__(self, contract: TrainingContract) -> None:
        self._text = contract.model_dump_json(indent=1)

    def on_save(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer in every process right after it has written its share."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            part = folder / "contract.part"
            part.write_text(self._text + "\n", encoding="utf-8")
            part.replace(folder / "contract.json")
