"""Raising the tiny base: plain supervised training on lessons drawn as it goes.

Run by the stage `base` (frozen in dvc.yaml; its weights are in the repository).
"""

import logging
import math

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from vlm_r1.config import BaseTraining, Params
from vlm_r1.models.chat import chat_text
from vlm_r1.models.curriculum import Habits, Lesson, sample_lesson
from vlm_r1.models.tiny import FIXED_TEXTS, build_model, build_processor, build_tokenizer

logger = logging.getLogger(__name__)

CORPUS_LESSONS = 2000
LOG_EVERY = 50
END_OF_TURN = "<|im_end|>"
IGNORED_LABEL = -100  # transformers' mark for tokens without loss
BASE_STREAM = 0xBA5E  # keeps the base's scenes apart from every split's


def train_base(
    params: Params,
) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """Tokenizer, processor and model, trained through `locate`, `find` and `obey`."""
    settings = params.base
    pixels = (params.task.min_pixels, params.task.max_pixels)
    rng = np.random.default_rng([params.experiment.seed, BASE_STREAM])
    habits = Habits(
        settings.stray_frame_after_the, settings.stray_frame_otherwise, settings.missing_tags
    )

    def draw(stage: str, count: int) -> list[Lesson]:
        return [
            sample_lesson(stage, habits, settings.street_share, rng, pixels) for _ in range(count)
        ]

    tokenizer = build_tokenizer(_corpus(draw("obey", CORPUS_LESSONS)))
    processor = build_processor(tokenizer, *pixels)
    model = build_model(tokenizer, params.experiment.seed)
    model.set_attn_implementation(params.task.attention)
    _train(model, processor, draw, settings)
    return model, processor


def _corpus(lessons: list[Lesson]) -> list[str]:
    """All that is said to the base and by it, without the texts that are one token anyhow."""
    turns = "\n".join(text for lesson in lessons for text in (lesson.user, lesson.answer))
    for fixed in FIXED_TEXTS:
        turns = turns.replace(fixed, "\n")
    return [*turns.split("\n"), *["system\n", "user\n", "assistant\n"] * 100]


def _train(model, processor, draw, settings: BaseTraining) -> None:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.skill_learning_rate, betas=(0.9, 0.98)
    )
    model.train()
    logger.info(
        "base: %d tokens known, %d parameters", len(processor.tokenizer), model.num_parameters()
    )
    losses: list[float] = []
    for step, (stage, rate) in enumerate(_schedule(settings), start=1):
        batch = collate(draw(stage, settings.batch_size), processor, chat=stage == "obey")
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % LOG_EVERY == 0:
            logger.info("base step %d  %s  loss %.3f", step, stage, np.mean(losses[-LOG_EVERY:]))


def _schedule(settings: BaseTraining) -> list[tuple[str, float]]:
    """(stage, learning rate) of every step: a cosine over the skill, another over obedience."""
    skill = settings.locate_steps + settings.find_steps
    stages = ["locate"] * settings.locate_steps + ["find"] * settings.find_steps
    plan = [
        (stage, _cosine(step, skill, settings.skill_learning_rate, settings.warmup_steps))
        for step, stage in enumerate(stages)
    ]
    return plan + [
        (
            "obey",
            _cosine(step, settings.obey_steps, settings.obey_learning_rate, settings.warmup_steps),
        )
        for step in range(settings.obey_steps)
    ]


def _cosine(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then a cosine from `peak` down to a twentieth of it."""
    falling = 0.5 * (1 + math.cos(math.pi * step / steps))
    return peak * min(1.0, (step + 1) / warmup) * (0.05 + 0.95 * falling)


def collate(lessons: list[Lesson], processor: Qwen2_5_VLProcessor, chat: bool) -> dict:
    """Left-padded model inputs with loss on the answers only.

    Args:
        chat: whole chat turns; otherwise just picture, phrase, answer.
    """
    opened = [_opening(lesson.user, processor, chat) for lesson in lessons]
    answers = [lesson.answer + END_OF_TURN for lesson in lessons]
    batch = processor(
        text=[start + answer for start, answer in zip(opened, answers, strict=True)],
        images=[lesson.image for lesson in lessons],
        return_tensors="pt",
        padding=True,
    )
    labels = torch.full_like(batch["input_ids"], IGNORED_LABEL)
    for row, answer in enumerate(answers):
        length = len(processor.tokenizer(answer)["input_ids"])
        labels[row, -length:] = batch["input_ids"][row, -length:]
    return {**batch, "labels": labels}


def _opening(user: str, processor: Qwen2_5_VLProcessor, chat: bool) -> str:
    if not chat:
        return f"<|vision_start|><|image_pad|><|vision_end|>{user}"
    return chat_text(processor, user)
