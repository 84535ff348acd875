"""TRL's trainers, changed where this project needs more than they do: resuming, loss, base name."""

from collections.abc import Callable
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, Trainer, TrainerState
from trl import GRPOTrainer, SFTTrainer

from vlm_r1.config import Task
from vlm_r1.models.loading import load_model


class _ResumableTrainer(Trainer):
    """Resumes from a checkpoint of any model that `from_pretrained` can open.

    Args:
        task: how weights are loaded; its `base_model` is the name that adapters give their base.
    """

    def __init__(self, task: Task, *, model: PreTrainedModel, **arguments: Any) -> None:
        self._task = task
        if arguments.get("peft_config") is not None:
            # PEFT writes this name into adapter_config.json. After loading it is an absolute path,
            # which would no longer lead to the base once the project is moved.
            model.name_or_path = task.base_model
            arguments["peft_config"].revision = task.revision
        super().__init__(model=model, **arguments)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Called by the Trainer to read a checkpoint's weights.

        transformers 5.23 matches weights by their names in the model, but Qwen2.5-VL is saved
        under older names: it would continue from the base, with a warning about missing keys.
        """
        if isinstance(self.model, PeftModel):  # adapters keep their names
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            assert self.model is not None
            saved = load_model(resume_from_checkpoint, self._task)
            self.model.load_state_dict(saved.state_dict())


class ResumableSFTTrainer(_ResumableTrainer, SFTTrainer):
    """Supervised fine-tuning whose loss and token count do not depend on how it is run."""

    def __init__(self, task: Task, **arguments: Any) -> None:
        super().__init__(task, **arguments)
        # Normalizes the loss by the answer tokens of the whole step, so that every token weighs
        # the same however rows are split into micro-batches and processes. The Trainer has read
        # False from Qwen2.5-VL's class, whose own loss cannot do that; TRL's loss can.
        self.model_accepts_loss_kwargs = True

    def train(  # type: ignore[override]  # only what run.py passes
        self, resume_from_checkpoint: str | None = None
    ) -> Any:
        """Train, from a checkpoint if one is given; continues its token count, which TRL resets."""
        if resume_from_checkpoint is not None:
            state = TrainerState.load_from_json(f"{resume_from_checkpoint}/trainer_state.json")
            self._total_train_tokens = int(state.log_history[-1]["num_tokens"])
        return super().train(resume_from_checkpoint=resume_from_checkpoint)


class ResumableGRPOTrainer(_ResumableTrainer, GRPOTrainer):
    """Group relative policy optimization (Shao et al. 2024).

    Attributes:
        on_rollout: is given every rollout, as TRL holds it.
    """

    on_rollout: Callable[[dict[str, Any]], None] | None = None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Called by TRL for every rollout."""
        rollout: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.on_rollout is not None:
            self.on_rollout(rollout)
        return rollout
