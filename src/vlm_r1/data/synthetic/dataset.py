"""Splits of the drawn worlds, written as the real sets are: images and VLM-R1 records."""

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlm_r1.config import DrawnSplit
from vlm_r1.data.synthetic.drawing import draw_scene
from vlm_r1.data.synthetic.phrases import phrase_for
from vlm_r1.data.synthetic.scenes import KINDS, WORLDS, Scene, World, sample_scene
from vlm_r1.errors import ConfigError
from vlm_r1.rec.prompts import question_for

TRIES_PER_PHRASE = 50


@dataclass(frozen=True)
class Page:
    """A scene and what is said about it: distinct phrase -> index of the thing it means."""

    scene: Scene
    phrases: dict[str, int]


def sample_split(split: str, drawn: DrawnSplit, seed: int) -> list[Page]:
    """The pages of one split; its random stream depends on the seed and the split's name only."""
    rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
    world = WORLDS[drawn.world]
    return [_sample_page(world, drawn.phrases_per_image, rng) for _ in range(drawn.images)]


def _sample_page(world: World, wanted: int, rng: np.random.Generator) -> Page:
    """A scene with `wanted` phrases; no thing gets a second one before each has its first."""
    scene = sample_scene(world, rng)
    order = rng.permutation(len(scene.things))
    phrases: dict[str, int] = {}
    for _ in range(TRIES_PER_PHRASE * wanted):
        target = int(order[len(phrases) % len(order)])
        phrases.setdefault(phrase_for(scene, target, rng), target)
        if len(phrases) == wanted:
            return Page(scene, phrases)
    raise ConfigError(
        got=f"phrases_per_image {wanted} in the world {world.name!r}",
        need=f"no more than a scene can be described by (here {len(phrases)} were found)",
        because="two equal phrases for one image would be one record twice",
        do="lower draw.<split>.phrases_per_image and raise draw.<split>.images",
    )


def require_no_shared_scene(splits: dict[str, list[Page]]) -> None:
    """Splits must not repeat each other's scenes, however these are decorated.

    Raises:
        ConfigError: names both splits and both images.
    """
    seen: dict[tuple, tuple[str, int]] = {}
    for split, pages in splits.items():
        for number, page in enumerate(pages, start=1):
            layout = (page.scene.world.name, frozenset(page.scene.things))
            first_split, first_number = seen.setdefault(layout, (split, number))
            if first_split != split:
                raise ConfigError(
                    got=f"one scene in {first_split} (image {first_number}) and in {split}"
                    f" (image {number})",
                    need="splits that share no scene",
                    because="a model would be tested on what it was trained on",
                    do="choose another experiment.seed",
                )


def write_split(folder: Path, split: str, pages: list[Page]) -> None:
    """Write `images/*.png` and `records.json` (a VLM-R1 array) into `folder`."""
    (folder / "images").mkdir(parents=True)
    for number, page in enumerate(pages, start=1):
        draw_scene(page.scene).save(folder / image_name(split, number))
    text = json.dumps(list(vlm_r1_records(split, pages)), indent=1)
    (folder / "records.json").write_text(text + "\n", encoding="utf-8")


def image_name(split: str, number: int) -> str:
    """Path of a split's image (counted from 1), relative to the split's folder."""
    return f"images/{split}_{number:06d}.png"


def vlm_r1_records(split: str, pages: list[Page]) -> Iterator[dict]:
    """One VLM-R1 record per phrase, with every key of rec_jsons_processed."""
    record_number = 0
    for image_number, page in enumerate(pages, start=1):
        for phrase, target in page.phrases.items():
            record_number += 1
            thing, world = page.scene.things[target], page.scene.world
            x1, y1, x2, y2 = (float(v) for v in thing.box)
            yield {
                "height": world.height,
                "width": world.width,
                "id": record_number,
                "original_id": image_number * 10 + target,  # one annotation a thing
                "dataset_name": split,
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
                "image_id": image_number,
                "category_id": KINDS.index(thing.kind) + 1,
                "bbox_list": [[x1, y1, x2 - 1, y2 - 1]],
                "text_type": "caption",
                "image": image_name(split, image_number),
                "problem": question_for(phrase),
                "normal_caption": phrase,
                "solution": [x1, y1, x2, y2],
                "normalized_solution": normalized((x1, y1, x2, y2), world.width, world.height),
            }


def normalized(box: tuple[float, float, float, float], width: int, height: int) -> list[int]:
    """VLM-R1's `normalized_solution`: xyxy in original pixels -> whole thousandths of each side."""
    sides = (width, height, width, height)
    return [math.floor(c / side * 1000) for c, side in zip(box, sides, strict=True)]
