"""Samples per second of our generation and of VLM-R1's loop: same model, same images, one run.

Run from the project's root: OMP_NUM_THREADS=1 python -m benchmarks.evaluation

VLM-R1's loop (om-ai-lab/VLM-R1, src/eval/test_rec_r1.py) takes rows in input order in batches of a
fixed size (4, later 2), opens and encodes an image for each row, and decodes up to 256 new tokens
until every row has ended its turn. Its second resize, by qwen_vl_utils, is omitted here.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from benchmarks.compare import figure
from vlm_r1 import environment
from vlm_r1.config import DrawnSplit, load_params
from vlm_r1.data.images import open_image
from vlm_r1.data.synthetic.dataset import sample_split, write_split
from vlm_r1.inference.generate import STOP, generate_completions
from vlm_r1.inference.questions import Question, question_about
from vlm_r1.models.loading import chat_text, load_model, load_processor
from vlm_r1.rec import prompts

MAX_NEW_TOKENS = 256
WARM_UP = 4  # rows
SIDE_PX = 84  # of the drawn images


class Speed(NamedTuple):
    """Time of one loop over all rows, and its completions."""

    wall_s: float
    cpu_s: float
    texts: list[str]


def main() -> None:
    """Print a line for each loop: its speed, and how many times faster ours is."""
    options = _options()
    named = {"base_model": options.model, "dtype": options.dtype}
    task = load_params().task.model_copy(update=named)
    model = load_model(options.model, task).eval()
    processor = load_processor(options.model, task)
    budget = options.batch_tokens
    with TemporaryDirectory() as folder:
        questions = draw_questions(Path(folder), options)
        alone = own_image_for_each(questions, Path(folder) / "alone")
        loops = {
            "ours": lambda: ours(model, processor, questions, budget),
            "VLM-R1's loop, batch of 2": lambda: fixed_batches(model, processor, questions, 2),
            "VLM-R1's loop, batch of 4": lambda: fixed_batches(model, processor, questions, 4),
            "ours, one image file for each row": lambda: ours(model, processor, alone, budget),
            "ours, 1/16 of the token budget": lambda: ours(
                model, processor, questions, budget // 16
            ),
        }
        fixed_batches(model, processor, questions[:WARM_UP], WARM_UP)
        rounds = [
            {name: timed(loop) for name, loop in loops.items()} for _ in range(options.rounds)
        ]
    print(
        f"{len(questions)} samples on {options.images} images, prompt {options.template}, "
        f"{options.dtype}, {torch.get_num_threads()} thread(s), {budget} tokens a batch, "
        f"{options.rounds} round(s)\n"
        f"{'':36}{'samples/s':>10}{'a CPU second':>14}{'ours is':>10}{'at least':>10}"
        f"{'same answers':>15}"
    )
    for name in loops:
        show(name, rounds)
    side = options.enlarge * SIDE_PX
    for name in (name for name in loops if name.startswith("VLM-R1")):
        seconds = ([one[way].cpu_s for one in rounds] for way in (name, "ours"))
        print(figure(f"evaluation at {side} px: speed-up over {name}", *seconds).line())


def fixed_batches(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    questions: list[Question],
    size: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[str]:
    """VLM-R1's loop; returns the completions."""
    texts = []
    for start in range(0, len(questions), size):
        batch = questions[start : start + size]
        inputs = processor(
            text=[chat_text(processor, question.text) for question in batch],
            images=[open_image(question.image) for question in batch],
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            output = model.generate(
                **inputs.to(model.device), max_new_tokens=max_new_tokens, do_sample=False
            )
        new = output[:, inputs["input_ids"].shape[1] :]
        texts += processor.batch_decode(new, skip_special_tokens=True)
    return texts


def ours(
    model: PreTrainedModel, processor: ProcessorMixin, questions: list[Question], batch_tokens: int
) -> list[str]:
    """Our loop, without the cache; returns the completions."""
    answers = generate_completions(model, processor, questions, batch_tokens, MAX_NEW_TOKENS)
    return [answer.text for answer in answers]


def timed(loop: Callable[[], list[str]]) -> Speed:
    """Run a loop once and time it."""
    wall, cpu = time.perf_counter(), time.process_time()
    texts = loop()
    return Speed(time.perf_counter() - wall, time.process_time() - cpu, texts)


def show(name: str, rounds: list[dict[str, Speed]]) -> None:
    """Print a loop's fastest round, and our speed-up over it: median and minimum over the rounds.

    The speed-up is by CPU time, because other load on the machine changes wall-clock time.
    """
    speed = min((speeds[name] for speeds in rounds), key=lambda speed: speed.cpu_s)
    speedups = [speeds[name].cpu_s / speeds["ours"].cpu_s for speeds in rounds]
    best, n = rounds[0]["ours"].texts, len(speed.texts)
    same = sum(_to_stop(a) == b for a, b in zip(speed.texts, best, strict=True))
    print(
        f"{name:36}{n / speed.wall_s:10.1f}{n / speed.cpu_s:14.1f}"
        f"{median(speedups):8.1f} x{min(speedups):8.1f} x{same:>8} of {n}"
    )


def draw_questions(folder: Path, options: argparse.Namespace) -> list[Question]:
    """Questions on drawn scenes of both worlds, in drawing order."""
    questions = []
    for world in ("studio", "street"):
        split = DrawnSplit(
            world=world,
            images=options.images // 2,
            phrases_per_image=options.phrases,
            detection=False,
            sizes=None,
        )
        write_split(folder / world, world, sample_split(world, split, options.seed))
        records = json.loads((folder / world / "records.json").read_text(encoding="utf-8"))
        for record in records:
            file = folder / world / record["image"]
            expression = prompts.expression_in(record["problem"])
            questions.append(question_about(options.template, expression, file))
    for file in {question.image for question in questions}:
        with Image.open(file) as image:
            enlarged = image.resize([side * options.enlarge for side in image.size])
        enlarged.save(file)
    return questions


def own_image_for_each(questions: list[Question], folder: Path) -> list[Question]:
    """The same questions, each with its own copy of the image file, so that no image is shared."""
    folder.mkdir()
    copies = [folder / f"{row}{q.image.suffix}" for row, q in enumerate(questions)]
    for question, copy in zip(questions, copies, strict=True):
        shutil.copy(question.image, copy)
    return [Question(q.text, copy) for q, copy in zip(questions, copies, strict=True)]


def _to_stop(text: str) -> str:
    before, stop, _ = text.partition(STOP)
    return before + stop


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models/base")
    parser.add_argument("--template", default="r1", choices=sorted(prompts.TEMPLATES))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--phrases", type=int, default=2, help="per image; RefCOCO has 7")
    parser.add_argument("--enlarge", type=int, default=1, help="factor on the drawn 84 px")
    parser.add_argument("--batch-tokens", type=int, default=32_768)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    environment.set_defaults()
    main()
