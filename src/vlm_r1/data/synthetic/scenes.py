"""Scenes of the two synthetic worlds: which things are where.

`studio` is the in-domain world, `street` the out-of-domain world. Both contain two or three colored
things. They share the task (find the thing that an expression refers to), but neither the image
style (`drawing`) nor the wording (`expressions`).
"""

from dataclasses import dataclass, replace

import numpy as np

from vlm_r1.config import Sizes

KINDS = ("circle", "square", "triangle")
COLORS = ("red", "green", "blue", "yellow")

GAP_PX = 2
MAX_TRIES = 60


@dataclass(frozen=True)
class World:
    """Sizes of an image and of its things, in original pixels."""

    name: str
    width: int
    height: int
    min_side: int
    max_side: int


# The worlds' own sizes. No side is a multiple of 28, so the processor's resize changes the
# coordinates of every box.
WORLDS = {
    "studio": World("studio", width=80, height=80, min_side=24, max_side=38),
    "street": World("street", width=90, height=60, min_side=20, max_side=32),
}


def sized_world(world: World, sizes: Sizes | None, rng: np.random.Generator) -> World:
    """`world` with the sides of its objects, and one of the image sizes, that `sizes` gives."""
    if sizes is None:
        return world
    width, height = sizes.images[int(rng.integers(len(sizes.images)))]
    least, most = sizes.objects
    return replace(world, width=width, height=height, min_side=least, max_side=most)


@dataclass(frozen=True)
class Thing:
    """One drawn thing; `box` is xyxy in original pixels."""

    kind: str
    color: str
    box: tuple[int, int, int, int]

    @property
    def center(self) -> tuple[float, float]:
        """(x, y), original pixels."""
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True)
class Scene:
    """A world, its things, and the random seed of everything that is only decoration."""

    world: World
    things: tuple[Thing, ...]
    look_seed: int


def sample_scene(world: World, rng: np.random.Generator, fewest: int = 2, most: int = 3) -> Scene:
    """A scene of `fewest` to `most` things that do not touch; no two share both color and kind."""
    wanted = int(rng.integers(fewest, most + 1))
    things: list[Thing] = []
    while len(things) < fewest:  # a large first thing can leave no room: start over
        things = _place_things(world, wanted, rng)
    return Scene(world, tuple(things), int(rng.integers(2**31)))


def _place_things(world: World, wanted: int, rng: np.random.Generator) -> list[Thing]:
    things: list[Thing] = []
    for _ in range(MAX_TRIES):
        if len(things) == wanted:
            break
        thing = _sample_thing(world, rng)
        if not any(_alike(thing, other) or _touch(thing, other) for other in things):
            things.append(thing)
    return things


def _sample_thing(world: World, rng: np.random.Generator) -> Thing:
    side_x, side_y = (int(s) for s in rng.integers(world.min_side, world.max_side + 1, size=2))
    kind = str(rng.choice(KINDS))
    if kind != "triangle":  # circles stay round, squares square
        side_y = side_x
    x1 = int(rng.integers(0, world.width - side_x + 1))
    y1 = int(rng.integers(0, world.height - side_y + 1))
    return Thing(kind, str(rng.choice(COLORS)), (x1, y1, x1 + side_x, y1 + side_y))


def _alike(a: Thing, b: Thing) -> bool:
    return a.kind == b.kind and a.color == b.color


def _touch(a: Thing, b: Thing) -> bool:
    ax1, ay1, ax2, ay2 = a.box
    bx1, by1, bx2, by2 = b.box
    apart = ax2 + GAP_PX <= bx1 or bx2 + GAP_PX <= ax1 or ay2 + GAP_PX <= by1 or by2 + GAP_PX <= ay1
    return not apart
