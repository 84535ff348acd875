"""TRL's trainers, made to go on from a checkpoint of any model that transformers can open."""

from typing import Any

from peft import PeftModel
from transformers import TrainerState
from trl import GRPOTrainer, SFTTrainer

from vlm_r1.config import Task
from vlm_r1.models.loading import load_model


class _OpensCheckpoints:
    """Reads a checkpoint's weights as `from_pretrained` does.

    transformers 5.23's Trainer reads them by the names they have in the model, but Qwen2.5-VL's are
    saved under older names: it would go on from the base with a warning about missing keys.
    """

    def __init__(self, task: Task, **arguments: Any) -> None:
        self._task = task
        super().__init__(**arguments)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if isinstance(self.model, PeftModel):  # adapters are saved under their own names
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            saved = load_model(resume_from_checkpoint, self._task)
            self.model.load_state_dict(saved.state_dict())


class ResumableSFTTrainer(_OpensCheckpoints, SFTTrainer):
    """Supervised fine-tuning that also goes on counting its tokens, which TRL begins at 0."""

    def train(self, resume_from_checkpoint: str | None = None) -> Any:
        """Train, from a checkpoint if there is one."""
        if resume_from_checkpoint is not None:
            state = TrainerState.load_from_json(f"{resume_from_checkpoint}/trainer_state.json")
            self._total_train_tokens = int(state.log_history[-1]["num_tokens"])
        return super().train(resume_from_checkpoint=resume_from_checkpoint)


class ResumableGRPOTrainer(_OpensCheckpoints, GRPOTrainer):
    """Group relative policy optimization."""
