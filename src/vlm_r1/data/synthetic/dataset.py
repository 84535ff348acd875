"""Synthetic splits in the layout of the real datasets: images and VLM-R1 records."""

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from vlm_r1.config import DrawnSplit
from vlm_r1.data.synthetic.drawing import draw_scene
from vlm_r1.data.synthetic.expressions import expression_for
from vlm_r1.data.synthetic.scenes import KINDS, WORLDS, Scene, World, sample_scene, sized_world
from vlm_r1.errors import ConfigError
from vlm_r1.files import write_json
from vlm_r1.rec.prompts import boxes_answer, question_for

TRIES_PER_EXPRESSION = 50


@dataclass(frozen=True)
class DescribedScene:
    """A scene and its expressions, each with the index of the thing it refers to.

    `targets` are the lists of kinds that a detection split asks for, in place of expressions.
    """

    scene: Scene
    expressions: dict[str, int]
    targets: tuple[tuple[str, ...], ...] = ()


def sample_split(split: str, drawn: DrawnSplit, seed: int) -> list[DescribedScene]:
    """The scenes of one split; the random stream depends only on the seed and the split's name."""
    rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
    worlds = (sized_world(WORLDS[drawn.world], drawn.sizes, rng) for _ in range(drawn.images))
    sample = _sample_targets if drawn.detection else _sample_scene
    return [sample(world, drawn.phrases_per_image, rng) for world in worlds]


def _sample_scene(world: World, wanted: int, rng: np.random.Generator) -> DescribedScene:
    """A scene with `wanted` expressions; every thing gets one before any gets a second."""
    scene = sample_scene(world, rng)
    order = rng.permutation(len(scene.things))
    expressions: dict[str, int] = {}
    for _ in range(TRIES_PER_EXPRESSION * wanted):
        target = int(order[len(expressions) % len(order)])
        expressions.setdefault(expression_for(scene, target, rng), target)
        if len(expressions) == wanted:
            return DescribedScene(scene, expressions)
    raise _too_many(wanted, world, len(expressions))


def _sample_targets(world: World, wanted: int, rng: np.random.Generator) -> DescribedScene:
    """A scene with `wanted` lists of one or two kinds, some of which it may lack."""
    lists = [*combinations(KINDS, 1), *combinations(KINDS, 2)]
    scene = sample_scene(world, rng)
    if wanted > len(lists):
        raise _too_many(wanted, world, len(lists))
    chosen = rng.permutation(len(lists))[:wanted]
    return DescribedScene(scene, {}, tuple(lists[i] for i in chosen))


def _too_many(wanted: int, world: World, found: int) -> ConfigError:
    return ConfigError(
        got=f"phrases_per_image {wanted} in the world {world.name!r}",
        need=f"no more than one scene allows ({found} were found for this one)",
        because="an expression that occurs twice for one image would be a repeated record",
        do="lower draw.<split>.phrases_per_image and raise draw.<split>.images",
    )


def require_no_shared_scene(splits: dict[str, list[DescribedScene]]) -> None:
    """Check that no two splits contain the same things in the same places.

    Raises:
        ConfigError: two do; names the splits and the images.
    """
    seen: dict[tuple, tuple[str, int]] = {}
    for split, scenes in splits.items():
        for number, described in enumerate(scenes, start=1):
            layout = (described.scene.world.name, frozenset(described.scene.things))
            first_split, first_number = seen.setdefault(layout, (split, number))
            if first_split != split:
                raise ConfigError(
                    got=f"one scene in {first_split} (image {first_number}) and in {split}"
                    f" (image {number})",
                    need="splits that share no scene",
                    because="a model would be tested on what it was trained on",
                    do="choose another experiment.seed",
                )


def write_split(folder: Path, split: str, scenes: list[DescribedScene]) -> None:
    """Write `images/*.png` and `records.json` (a VLM-R1 array) into `folder`."""
    (folder / "images").mkdir(parents=True)
    for number, described in enumerate(scenes, start=1):
        draw_scene(described.scene).save(folder / _image_name(split, number))
    records = [*vlm_r1_records(split, scenes), *detection_records(split, scenes)]
    write_json(folder / "records.json", records)


def _image_name(split: str, number: int) -> str:
    """Path of an image relative to the split's folder; `number` counts from 1."""
    return f"images/{split}_{number:06d}.png"


def vlm_r1_records(split: str, scenes: list[DescribedScene]) -> Iterator[dict]:
    """One VLM-R1 record per expression, with every key of rec_jsons_processed."""
    record_number = 0
    for image_number, described in enumerate(scenes, start=1):
        for expression, target in described.expressions.items():
            record_number += 1
            thing, world = described.scene.things[target], described.scene.world
            x1, y1, x2, y2 = (float(v) for v in thing.box)
            yield {
                "height": world.height,
                "width": world.width,
                "id": record_number,
                "original_id": image_number * 10 + target,  # one annotation per thing
                "dataset_name": split,
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
                "image_id": image_number,
                "category_id": KINDS.index(thing.kind) + 1,
                "bbox_list": [[x1, y1, x2 - 1, y2 - 1]],
                "text_type": "caption",
                "image": _image_name(split, image_number),
                "problem": question_for(expression),
                "normal_caption": expression,
                "solution": [x1, y1, x2, y2],
                "normalized_solution": normalized((x1, y1, x2, y2), world.width, world.height),
            }


def detection_records(split: str, scenes: list[DescribedScene]) -> Iterator[dict]:
    """A row of VLM-R1's OVD layout per list of kinds; its objects are all things of these kinds."""
    asked = ((n, one, kinds) for n, one in enumerate(scenes, start=1) for kinds in one.targets)
    for record_number, (image_number, described, kinds) in enumerate(asked, start=1):
        things, world = described.scene.things, described.scene.world
        objects = [(thing.box, thing.kind) for thing in things if thing.kind in kinds]
        yield {
            "height": world.height,
            "width": world.width,
            "id": record_number,
            "dataset_name": split,
            "image": _image_name(split, image_number),
            "conversations": [
                {"from": "human", "value": f"<image>{question_for(', '.join(kinds), True)}"},
                {"from": "gpt", "value": boxes_answer(objects)},
            ],
        }


def normalized(box: Sequence[float], width: int, height: int) -> list[int]:
    """VLM-R1's `normalized_solution`: xyxy in original pixels -> whole thousandths of each side."""
    sides = (width, height, width, height)
    return [math.floor(c / side * 1000) for c, side in zip(box, sides, strict=True)]
