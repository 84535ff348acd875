"""What happens beside a training: log file, progress lines, the contract in checkpoints."""

import json
import logging
from pathlib import Path

from transformers import TrainerCallback

from vlm_r1.contract import TrainingContract

logger = logging.getLogger(__name__)

SHOWN = ("loss", "reward", "reward_std", "kl", "rewards/iou/mean", "rewards/format/mean")


class LogFile(TrainerCallback):
    """Appends every logged quantity to `training_log.jsonl` and shows the main ones as a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Called by the Trainer on every log."""
        if not state.is_world_process_zero or not logs:
            return
        numbers = {k: v for k, v in logs.items() if isinstance(v, int | float)}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": state.global_step, **numbers}) + "\n")
        shown = "  ".join(f"{name} {numbers[name]:.3f}" for name in SHOWN if name in numbers)
        logger.info("step %d/%d  %s", state.global_step, state.max_steps, shown)


class WriteContract(TrainerCallback):
    """Puts `contract.json` into every checkpoint, whole and last: who sees it sees a whole one."""

    def __init__(self, contract: TrainingContract) -> None:
        self._text = contract.model_dump_json(indent=1)

    def on_save(self, args, state, control, **kwargs) -> None:
        """Called by the Trainer right after a checkpoint is written."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            part = folder / "contract.part"
            part.write_text(self._text + "\n", encoding="utf-8")
            part.replace(folder / "contract.json")
