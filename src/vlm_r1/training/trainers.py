"""TRL's trainers, changed where this project needs more than they do.

Both: resuming, the base's name, a frozen vision tower. SFT: the loss. GRPO: images, how completions
are written.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, Trainer, TrainerState
from trl import SFTTrainer

from vlm_r1.config import Params, Task
from vlm_r1.models.families import family_of
from vlm_r1.models.loading import load_model
from vlm_r1.models.trainable import stop_gradients_in_frozen_tower
from vlm_r1.training.decoding import StopAtAnswer, generate_with, sample_unfinished
from vlm_r1.training.dynamic_sampling import FurtherPrompts, Rollout, equal_groups, refill
from vlm_r1.training.rollout_images import RolloutImages, Row
from vlm_r1.training.shared_prompts import SharedPromptTrainer


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
        stop_gradients_in_frozen_tower(model, family_of(model.config.model_type))

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


class ResumableGRPOTrainer(_ResumableTrainer, SharedPromptTrainer):
    """Group relative policy optimization (Shao et al. 2024).

    Args:
        params: of the training; the dataset's column `image` holds paths.
        further: prompts for `grpo.max_resamples`.

    Attributes:
        on_rollout: is given every rollout, as TRL holds it.
    """

    on_rollout: Callable[[Rollout], None] | None = None

    def __init__(
        self, task: Task, *, params: Params, further: FurtherPrompts | None = None, **arguments: Any
    ) -> None:
        super().__init__(task, **arguments)
        self._grpo = params.grpo
        self.share_prompts(params.grpo.share_prompts)
        self.further = further
        self._equal = torch.zeros(0, dtype=torch.bool)  # groups of all processes, last rollout's
        processor: Any = self.processing_class  # a vision-language model's, with both of its parts
        self._images = RolloutImages(processor.image_processor, params.train.workers)
        collator: Any = self._images.read_ahead  # in place of TRL's, which does nothing
        self.data_collator = collator

    def _generate_and_score_completions(self, inputs: list[Row]) -> Rollout:
        """Called by TRL for every rollout."""
        rollout = self._rollout(self._images.begin(inputs))
        if self.further is not None:
            rollout = self._refilled(rollout, self.further)
        return rollout

    def _rollout(self, rows: list[Row]) -> Rollout:
        with self._images.processed_once(self.processing_class):
            rollout: Rollout = super()._generate_and_score_completions(rows)
        if self.on_rollout is not None:
            self.on_rollout(rollout)
        return rollout

    def _refilled(self, rollout: Rollout, further: FurtherPrompts) -> Rollout:
        """The rollout after groups of equal rewards were replaced, as far as `max_resamples` goes.

        Each process replaces its own, and each asks as many prompts as the one that needs most.
        """
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        size = self._grpo.num_generations
        empty = self._equal.view(processes, -1)
        for _ in range(self._grpo.max_resamples):
            prompts = further.take(int(empty.sum(1).max()), process, processes)
            if not prompts:
                break
            rows = [row for row in prompts for _ in range(size)]
            more = self._rollout(self._images.go_on(rows))
            found = ~self._equal.view(processes, -1)
            pairs = [_pairs(places, groups) for places, groups in zip(empty, found, strict=True)]
            places, groups = pairs[process]
            rollout = refill(rollout, more, _rows_of(places, size), _rows_of(groups, size))
            for own, (filled, _) in zip(empty, pairs, strict=True):
                own[filled] = False
        self._metrics["train"]["groups/equal_after_resampling"].append(empty.float().mean().item())
        trained = self.accelerator.gather(rollout["completion_mask"].sum())
        return rollout | {"num_items_in_batch": trained.sum()}

    def _calculate_rewards(self, *rollout: Any) -> torch.Tensor:
        """Called by TRL for every rollout: rewards of all processes, (completions, rewards)."""
        rewards: torch.Tensor = super()._calculate_rewards(*rollout)
        weights = self.reward_weights.to(rewards.device)
        self._equal = equal_groups(rewards, weights, self._grpo.num_generations).cpu()
        return rewards

    def _generate_single_turn(self, *prompts: Any, **options: Any) -> tuple[list[list[int]], Any]:
        """Called by TRL to write a rollout's completions: lists of token ids."""
        stop = StopAtAnswer(self._tokenizer) if self._grpo.stop_at_answer else None
        with ExitStack() as stack:
            # `generate` calls the vision tower by itself, outside of the model's own autocast, in
            # the 32 bits of a full fine-tuning's weights, which flash-attention refuses
            stack.enter_context(self.accelerator.autocast())
            if arguments := self._generation_arguments(stop):
                whole: Any = self.whole_model
                stack.enter_context(generate_with(whole, partial(whole.generate, **arguments)))
            completions, logprobs = super()._generate_single_turn(*prompts, **options)
        if stop is not None:
            completions = stop.cut(completions)
            stopped = self.accelerator.gather((stop.lengths > 0).float())
            self._metrics["train"]["completions/stopped_at_answer"].append(stopped.mean().item())
        return completions, logprobs

    def _generation_arguments(self, stop: StopAtAnswer | None) -> dict[str, Any]:
        """What `generate` is to be given besides what TRL gives it."""
        arguments: dict[str, Any] = {}
        if stop is not None:
            arguments["stopping_criteria"] = [stop]
        if self._grpo.drop_finished:
            arguments["custom_generate"] = sample_unfinished
        return arguments


def _pairs(places: torch.Tensor, groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of empty places and of groups for them, as many as there are of both.

    Example: places 0 1 1, groups 1 0 -> [1], [0]
    """
    wanted, given = (flags.nonzero().squeeze(1) for flags in (places, groups))
    number = min(len(wanted), len(given))
    return wanted[:number], given[:number]


def _rows_of(groups: torch.Tensor, size: int) -> torch.Tensor:
    """Row numbers of groups of `size` rows. Example: [2], 3 -> [6, 7, 8]"""
    return (groups[:, None] * size + torch.arange(size)).flatten()
