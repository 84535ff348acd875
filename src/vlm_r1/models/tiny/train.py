"""Raising the tiny base: plain supervised training on examples drawn as it goes.

Run by the stage `base` (frozen in dvc.yaml; its weights are in the repository).
"""

import logging
import math

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from vlm_r1.config import BaseTraining, Params
from vlm_r1.models.loading import chat_text
from vlm_r1.models.tiny.curriculum import Curriculum, Example, InjectedErrors
from vlm_r1.models.tiny.model import FIXED_TEXTS, build_model, build_processor, build_tokenizer

logger = logging.getLogger(__name__)

CORPUS_LESSONS = 2000
LOG_EVERY = 50
END_OF_TURN = "<|im_end|>"
IGNORED_LABEL = -100  # transformers' mark for tokens without loss
BASE_STREAM = 0xBA5E  # keeps the base's scenes apart from every split's


def train_base(
    params: Params,
) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """Tokenizer, processor and model, trained through every stage of the curriculum."""
    settings = params.base
    pixels = (params.task.min_pixels, params.task.max_pixels)
    injected_errors = InjectedErrors(
        settings.wrong_space_after_the, settings.wrong_space_otherwise, settings.missing_tags
    )
    rng = np.random.default_rng([params.experiment.seed, BASE_STREAM])
    curriculum = Curriculum(injected_errors, settings.street_share, pixels, rng)
    tokenizer = build_tokenizer(_corpus(curriculum.examples("obey", CORPUS_LESSONS)))
    processor = build_processor(tokenizer, *pixels)
    model = build_model(tokenizer, params.experiment.seed)
    model.set_attn_implementation(params.task.attention)
    _train(model, processor, curriculum, settings)
    return model, processor


def _corpus(examples: list[Example]) -> list[str]:
    """All that is said to the base and by it, without the texts that are one token anyhow."""
    turns = "\n".join(text for lesson in examples for text in (lesson.user, lesson.answer))
    for fixed in FIXED_TEXTS:
        turns = turns.replace(fixed, "\n")
    return [*turns.split("\n"), *["system\n", "user\n", "assistant\n"] * 100]


def _train(model, processor, curriculum: Curriculum, settings: BaseTraining) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98))
    model.train()
    logger.info(
        "base: %d tokens known, %d parameters", len(processor.tokenizer), model.num_parameters()
    )
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
    """The lesson stage of every step."""
    return (
        ["locate"] * settings.locate_steps
        + ["match"] * settings.match_steps
        + ["find"] * settings.find_steps
        + ["obey"] * settings.obey_steps
    )


def _cosine(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then a cosine from `peak` down to a twentieth of it."""
    falling = 0.5 * (1 + math.cos(math.pi * step / steps))
    return peak * min(1.0, (step + 1) / warmup) * (0.05 + 0.95 * falling)


def collate(examples: list[Example], processor: Qwen2_5_VLProcessor) -> dict:
    """Left-padded chat turns as model inputs, with loss on the answers only."""
    answers = [lesson.answer + END_OF_TURN for lesson in examples]
    asked = [chat_text(processor, lesson.user) for lesson in examples]
    batch = processor(
        text=[start + answer for start, answer in zip(asked, answers, strict=True)],
        images=[lesson.image for lesson in examples],
        return_tensors="pt",
        padding=True,
    )
    labels = torch.full_like(batch["input_ids"], IGNORED_LABEL)
    for row, answer in enumerate(answers):
        length = len(processor.tokenizer(answer)["input_ids"])
        labels[row, -length:] = batch["input_ids"][row, -length:]
    return {**batch, "labels": labels}
