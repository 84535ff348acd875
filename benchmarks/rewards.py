"""Completions per second of the rewards iou and format, compared with VLM-R1's way.

Run from the project's root, on one core: OMP_NUM_THREADS=1 python -m benchmarks.rewards
VLM-R1's reward opens the image of each completion to learn its size and judges one completion after
the other; that loop is repeated here with our own parser, IoU and format. CPU seconds are measured,
so that other work on the machine does not count.
"""

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.compare import figure
from vlm_r1.rec import boxes
from vlm_r1.rec.parsing import box_in_original, parse_answer
from vlm_r1.rec.prompts import r1_answer
from vlm_r1.rec.rewards import REWARDS
from vlm_r1.rec.rewards.batch import Batch
from vlm_r1.rec.rewards.text import has_format

COMPLETIONS = 20_000
ROUNDS = 3
PER_STEP = 128  # 16 prompts x 8 completions
HEIGHT, WIDTH = 480, 640  # COCO's usual image


def main() -> None:
    """Print completions per second of both, with batches of one step and in one batch."""
    texts, true_boxes = completions(random.Random(0))
    seconds = cpu_s(lambda: ours(texts, true_boxes, COMPLETIONS))
    print(f"iou + format, all in one batch: {COMPLETIONS / seconds:,.0f} completions/s")
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.jpg"
        noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(image)
        rounds = [
            (
                cpu_s(lambda: as_vlm_r1(texts, true_boxes, image)),
                cpu_s(lambda: ours(texts, true_boxes, PER_STEP)),
            )
            for _ in range(ROUNDS)
        ]
    for way, number in (("one by one, opening the image", 0), (f"batches of {PER_STEP}", 1)):
        seconds = median(seconds[number] for seconds in rounds)
        print(f"iou + format, {way}: {COMPLETIONS / seconds:,.0f} completions/s")
    print(figure("rewards: speed-up over VLM-R1's way", *zip(*rounds, strict=True)).line())


def completions(rng: random.Random) -> tuple[list[str], list[list[int]]]:
    """R1 completions with a thought of about 40 words, one in ten without an answer."""
    words = ["the", "red", "circle", "left", "of", "a", "small", "blue", "square"]
    texts, true_boxes = [], []
    for _ in range(COMPLETIONS):
        x, y = rng.randrange(WIDTH // 2), rng.randrange(HEIGHT // 2)
        box = (x, y, x + rng.randrange(1, 300), y + rng.randrange(1, 200))
        thought = " ".join(rng.choices(words, k=40))
        texts.append(r1_answer(thought, box) if rng.random() < 0.9 else f"<think>{thought}")
        true_boxes.append([x, y, x + 150, y + 100])
    return texts, true_boxes


def ours(texts: list[str], true_boxes: list[list[int]], size: int) -> None:
    """Both rewards as the trainer asks them, in batches of `size`."""
    for start in range(0, len(texts), size):
        some = texts[start : start + size]
        sizes = [(HEIGHT, WIDTH)] * len(some), [(476, 644)] * len(some)
        batch = Batch(some, [[box] for box in true_boxes[start : start + size]], "input", *sizes)
        for name in ("iou", "format"):
            REWARDS[name](batch)


def as_vlm_r1(texts: list[str], true_boxes: list[list[int]], image: Path) -> None:
    """Both rewards for one completion after the other, the size from the image's file."""
    for text, true_box in zip(texts, true_boxes, strict=True):
        with Image.open(image) as opened:
            image_size = (opened.height, opened.width)
        box = box_in_original(parse_answer(text, "input"), image_size, (476, 644))
        float(boxes.iou(box, np.array(true_box)))
        has_format(text)


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of this process for one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
