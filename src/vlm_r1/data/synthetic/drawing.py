"""Drawing a scene: flat and bright in the studio; dark, textured and cluttered in the street."""

import numpy as np
from PIL import Image, ImageDraw

from vlm_r1.data.synthetic.scenes import Scene, Thing

STUDIO_RGB = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 205, 40),
}
STREET_RGB = {
    "red": (150, 25, 45),
    "green": (20, 120, 85),
    "blue": (40, 90, 165),
    "yellow": (175, 135, 30),
}


def draw_scene(scene: Scene) -> Image.Image:
    """The scene as an RGB image of `world.width` x `world.height` pixels."""
    rng = np.random.default_rng(scene.look_seed)
    return {"studio": _draw_studio, "street": _draw_street}[scene.world.name](scene, rng)


def _draw_studio(scene: Scene, rng: np.random.Generator) -> Image.Image:
    background = tuple(int(c) for c in rng.integers(215, 250, size=3))
    image = Image.new("RGB", (scene.world.width, scene.world.height), background)
    pen = ImageDraw.Draw(image)
    for thing in scene.things:
        _fill(pen, thing, _jitter(STUDIO_RGB[thing.color], 12, rng), outline=None)
    return image


def _draw_street(scene: Scene, rng: np.random.Generator) -> Image.Image:
    image = Image.fromarray(_street_background(scene, rng))
    pen = ImageDraw.Draw(image)
    _draw_clutter(pen, scene, rng)
    for thing in scene.things:
        color = _jitter(STREET_RGB[thing.color], 10, rng)
        _fill(pen, thing, color, outline=tuple(c // 2 for c in color))
    grain = rng.normal(0, 8, size=(scene.world.height, scene.world.width, 1))
    pixels = np.asarray(image, dtype=np.float32) * _light(scene, rng) + grain
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _street_background(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A dark background with coarse patches, uint8 (height, width, 3)."""
    height, width = scene.world.height, scene.world.width
    patches = rng.integers(35, 75, size=(height // 10 + 1, width // 10 + 1, 1))
    background = patches.repeat(10, axis=0).repeat(10, axis=1)[:height, :width]
    tint = rng.integers(-6, 7, size=3)
    return (background + tint).clip(0, 255).astype(np.uint8)


def _draw_clutter(pen: ImageDraw.ImageDraw, scene: Scene, rng: np.random.Generator) -> None:
    """Gray poles and wires behind the things; no expression refers to them."""
    width, height = scene.world.width, scene.world.height
    for _ in range(int(rng.integers(3, 7))):
        gray = int(rng.integers(60, 110))
        ends = [int(v) for v in rng.integers(0, (width, height, width, height))]
        pen.line(ends, fill=(gray, gray, gray), width=int(rng.integers(1, 3)))


def _light(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Light from one side: brightness per column, float (1, width, 1)."""
    slope = rng.uniform(-0.35, 0.35)
    return (1.05 + slope * np.linspace(-1, 1, scene.world.width))[None, :, None]


def _fill(pen: ImageDraw.ImageDraw, thing: Thing, color: tuple, outline: tuple | None) -> None:
    # x2, y2 of a box are exclusive; Pillow's are inclusive.
    x1, y1, x2, y2 = thing.box[0], thing.box[1], thing.box[2] - 1, thing.box[3] - 1
    if thing.kind == "circle":
        pen.ellipse((x1, y1, x2, y2), fill=color, outline=outline)
    elif thing.kind == "square":
        pen.rectangle((x1, y1, x2, y2), fill=color, outline=outline)
    else:
        pen.polygon([((x1 + x2) // 2, y1), (x1, y2), (x2, y2)], fill=color, outline=outline)


def _jitter(color: tuple[int, int, int], spread: int, rng: np.random.Generator) -> tuple:
    return tuple(int(np.clip(c + rng.integers(-spread, spread + 1), 0, 255)) for c in color)
