"""Greedy completions by this project's evaluation and by a plain `generate` loop, timed."""

from pathlib import Path
from typing import Any

from benchmarks.evaluation import fixed_batches
from benchmarks.gpu.training import now
from vlm_r1.config import Params
from vlm_r1.inference.generate import generate_completions
from vlm_r1.inference.questions import question_about
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.training.job import load_job

PLAIN_BATCH = 4  # rows, as VLM-R1's loop had at first
QUESTIONS_PER_IMAGE = 4  # RefCOCO has about 7
BATCH_TOKENS = 32_768


def seconds(params: Params, root: Path) -> tuple[float, float]:
    """Seconds of our loop and of the plain one, for the same questions."""
    job = load_job(params, root, "grpo")
    model: Any = load_model(job.base, params.task).to(params.launch.device).eval()
    processor = load_processor(job.base, params.task)
    tokens = params.grpo.max_completion_tokens
    questions = [
        question_about("r1", f"{expression} {number}", job.images / image)
        for expression, image in zip(job.records["expression"], job.records["image"], strict=True)
        for number in range(QUESTIONS_PER_IMAGE)
    ]
    fixed_batches(model, processor, questions[:PLAIN_BATCH], PLAIN_BATCH, tokens)  # warm-up
    began = now()
    generate_completions(model, processor, questions, BATCH_TOKENS, tokens)
    middle = now()
    fixed_batches(model, processor, questions, PLAIN_BATCH, tokens)
    return middle - began, now() - middle
