"""Attention of the laptop's model: sdpa beside eager, in GRPO's step and in evaluation.

Run from the project's root, on one core: OMP_NUM_THREADS=1 python -m benchmarks.attention
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import evaluation, grpo_step
from benchmarks.compare import figure
from vlm_r1 import environment
from vlm_r1.config import load_params
from vlm_r1.models.loading import load_model, load_processor

BASELINE, OURS = "eager", "sdpa"
IMAGES, PHRASES, BATCH_TOKENS = 200, 2, 32_768


def main() -> None:
    """Print the answers that are equal, then a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with TemporaryDirectory(prefix="attention-") as folder:
        params = grpo_step.make_project(Path(folder), "laptop", 8, rounds)
        parts = grpo_step.measure(params, Path(folder), rounds, switch)
    figures = [
        figure(f"sdpa / eager, shared prompts: {part}", ours, baseline)
        for part, (baseline, ours) in parts.items()
    ]
    figures.append(evaluated(rounds))
    print("\n".join(one.line() for one in figures))


def switch(trainer: Any, ours: bool) -> None:
    """Change the attention of the trainer's model and of its reference."""
    for model in (trainer.whole_model, trainer.accelerator.unwrap_model(trainer.ref_model)):
        model.set_attn_implementation(OURS if ours else BASELINE)


def evaluated(rounds: int) -> Any:
    """The figure of evaluation: greedy answers to drawn questions."""
    task = load_params().task
    model: Any = load_model("models/base", task).eval()
    processor = load_processor("models/base", task)
    seconds: dict[str, list[float]] = {BASELINE: [], OURS: []}
    texts = {}
    drawn = argparse.Namespace(images=IMAGES, phrases=PHRASES, seed=7, template="r1", enlarge=1)
    with TemporaryDirectory() as folder:
        questions = evaluation.draw_questions(Path(folder), drawn)
        for _ in range(rounds + 1):
            for way in seconds:
                model.set_attn_implementation(way)
                speed = evaluation.timed(
                    lambda: evaluation.ours(model, processor, questions, BATCH_TOKENS)
                )
                seconds[way].append(speed.cpu_s)
                texts[way] = speed.texts
    same = sum(a == b for a, b in zip(*texts.values(), strict=True))
    print(f"{same} of {len(questions)} answers are equal")
    return figure("sdpa / eager: evaluation", seconds[OURS][1:], seconds[BASELINE][1:])


if __name__ == "__main__":
    environment.set_defaults()
    main()
