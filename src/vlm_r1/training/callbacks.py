"""What the Trainer calls while it trains: the log file, the step grid, contracts in checkpoints."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from vlm_r1.files import write_text
from vlm_r1.rec.contract import TrainingContract
from vlm_r1.training.resume import keep_newest_state, read_log

logger = logging.getLogger(__name__)

Listener = Callable[[dict[str, Any]], None]
# quantities shown as progress; the file has all of them
SHOWN = ("loss", "reward", "reward_std", "kl", "rewards/iou/mean", "rewards/format/mean")


def ignore(line: dict[str, Any]) -> None:
    """The listener of a training that nobody follows."""


class SaveAtSteps(TrainerCallback):
    """Makes the Trainer save at the steps of the grid; its own `save_steps` is one number.

    Must be called before `LogFile`, which logs where the Trainer is going to save.
    """

    def __init__(self, step_grid: list[int]) -> None:
        self._steps = frozenset(step_grid)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer before it logs and saves."""
        control.should_save |= state.global_step in self._steps


class LogFile(TrainerCallback):
    """Appends every logged line to `training_log.jsonl` and logs its main quantities.

    Args:
        listener: gets every line, also those of an earlier attempt; must return at once.
    """

    def __init__(self, path: Path, listener: Listener) -> None:
        self._path = path
        self._listener = listener

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer before the first step."""
        if state.is_world_process_zero:
            for line in read_log(self._path):
                self._listener(line)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer before it logs and saves: log at every checkpoint.

        A checkpoint does not hold the averages that TRL collects between two lines. With a line
        at the checkpoint nothing is collected yet, and a resumed training logs the same numbers.
        """
        control.should_log |= control.should_save

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Called by the Trainer on every log; skips its last, which covers this attempt only."""
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        numbers = {k: v for k, v in logs.items() if isinstance(v, int | float)}
        line = {"step": state.global_step, **numbers}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self._listener(line)
        shown = "  ".join(f"{name} {numbers[name]:.3f}" for name in SHOWN if name in numbers)
        logger.info("step %d/%d  %s", state.global_step, state.max_steps, shown)


class WriteContract(TrainerCallback):
    """Writes `contract.json` into every checkpoint, last: a checkpoint that has it is complete."""

    def __init__(self, contract: TrainingContract) -> None:
        self._text = contract.model_dump_json(indent=1)

    def on_save(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer in every process, right after it has written its share."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_text(folder / "contract.json", self._text)


class KeepNewestState(TrainerCallback):
    """Removes the optimizer state of older checkpoints; called after `WriteContract`.

    Args:
        every: training resumes only at multiples of this many steps, see `arguments.rollout_steps`.
    """

    def __init__(self, every: int) -> None:
        self._every = every

    def on_save(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer in every process, right after it has written its share."""
        if state.is_world_process_zero:
            keep_newest_state(Path(args.output_dir), self._every)
