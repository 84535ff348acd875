"""Pretrains the tiny base model: supervised training on examples that are drawn on the fly.

Run by the stage `base`, which is frozen in dvc.yaml: the weights are in the repository.
"""

import logging
import math
from typing import Any

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from vlm_r1.config import BaseTraining, Task
from vlm_r1.models.loading import chat_text
from vlm_r1.models.tiny.curriculum import Curriculum, Example, InjectedErrors
from vlm_r1.models.tiny.model import FIXED_TEXTS, build_model, build_processor, build_tokenizer

logger = logging.getLogger(__name__)

CORPUS_EXAMPLES = 2000
LOG_EVERY = 50
END_OF_TURN = "<|im_end|>"
IGNORED_LABEL = -100  # transformers' label of tokens without loss
BASE_STREAM = 0xBA5E  # makes the scenes differ from those of every dataset split


def pretrain(
    settings: BaseTraining, task: Task, seed: int
) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """Model and processor after all stages of the curriculum.

    Args:
        task: pixel budget and attention.
        seed: of the examples and the initial weights.
    """
    pixels = (task.min_pixels, task.max_pixels)
    injected_errors = InjectedErrors(
        settings.wrong_space_after_the, settings.wrong_space_otherwise, settings.missing_tags
    )
    rng = np.random.default_rng([seed, BASE_STREAM])
    curriculum = Curriculum(injected_errors, settings.street_share, pixels, rng)
    tokenizer = build_tokenizer(_corpus(curriculum.examples("obey", CORPUS_EXAMPLES)))
    processor = build_processor(tokenizer, *pixels)
    model = build_model(tokenizer, seed)
    model.set_attn_implementation(task.attention)
    _optimize(model, processor, curriculum, settings)
    return model, processor


def _corpus(examples: list[Example]) -> list[str]:
    """The tokenizer's training text: all turns without the fixed texts, which are tokens anyway."""
    turns = "\n".join(text for example in examples for text in (example.user, example.answer))
    for fixed in FIXED_TEXTS:
        turns = turns.replace(fixed, "\n")
    return [*turns.split("\n"), *["system\n", "user\n", "assistant\n"] * 100]


def _optimize(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    curriculum: Curriculum,
    settings: BaseTraining,
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98))
    model.train()
    tokenizer: Any = processor.tokenizer
    logger.info("base: %d tokens, %d parameters", len(tokenizer), model.num_parameters())
    losses: list[float] = []
    stages = _stages(settings)
    for step, stage in enumerate(stages):
        batch = collate(curriculum.examples(stage, settings.batch_size), processor)
        for group in optimizer.param_groups:
            group["lr"] = _cosine(step, len(stages), settings.learning_rate, settings.warmup_steps)
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if len(losses) % LOG_EVERY == 0:
            mean = np.mean(losses[-LOG_EVERY:])
            logger.info("base step %d/%d  %s  loss %.3f", step + 1, len(stages), stage, mean)


def _stages(settings: BaseTraining) -> list[str]:
    """The curriculum stage of each step."""
    return (
        ["locate"] * settings.locate_steps
        + ["match"] * settings.match_steps
        + ["find"] * settings.find_steps
        + ["obey"] * settings.obey_steps
    )


def _cosine(step: int, steps: int, peak: float, warmup: int) -> float:
    """Learning rate: linear warm-up, and a cosine decay from `peak` to a twentieth of it."""
    decay = 0.5 * (1 + math.cos(math.pi * step / steps))
    return peak * min(1.0, (step + 1) / warmup) * (0.05 + 0.95 * decay)


def collate(examples: list[Example], processor: Any) -> dict[str, torch.Tensor]:
    """Model inputs of left-padded prompts and answers, with labels on the answers only."""
    answers = [example.answer + END_OF_TURN for example in examples]
    user_turns = [chat_text(processor, example.user) for example in examples]
    batch = processor(
        text=[turn + answer for turn, answer in zip(user_turns, answers, strict=True)],
        images=[example.image for example in examples],
        return_tensors="pt",
        padding=True,
    )
    labels = torch.full_like(batch["input_ids"], IGNORED_LABEL)
    for row, answer in enumerate(answers):
        length = len(processor.tokenizer(answer)["input_ids"])
        labels[row, -length:] = batch["input_ids"][row, -length:]
    return {**batch, "labels": labels}
