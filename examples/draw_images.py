"""Draws the images of the examples and writes their tables: `python examples/draw_images.py`.

The images stand for photos of yours: colored shapes on a desk by day (examples/own_dataset) and by
night (examples/own_out_of_domain). They are in the repository; this script is how they were made.
"""

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

EXAMPLES = Path(__file__).parent
WIDTH, HEIGHT, SIDE = 88, 66, 18  # pixels
COLORS = {"red": (205, 45, 40), "green": (45, 150, 70), "blue": (55, 85, 210)}
KINDS = ("circle", "square", "triangle")
COLUMNS = ("image", "expression", "x", "y", "w", "h")
TABLES = {  # table -> images in it
    "own_dataset/train.csv": 12,
    "own_dataset/validation.csv": 4,
    "own_dataset/test.csv": 4,
    "own_out_of_domain/night.csv": 6,
}


def main() -> None:
    """Write every table and its images."""
    rng = np.random.default_rng(0)
    for name, images in TABLES.items():
        table = EXAMPLES / name
        (table.parent / "images").mkdir(exist_ok=True)
        rows = [row for number in range(images) for row in draw_image(table, number, rng)]
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([COLUMNS, *rows])


def draw_image(table: Path, number: int, rng: np.random.Generator) -> list[tuple]:
    """Draw one image of three shapes; returns a table row (box as x, y, w, h) for two of them."""
    night = table.stem == "night"
    image = Image.fromarray(desk(night, rng))
    pen = ImageDraw.Draw(image)
    file = f"{table.stem}-{number}.png"
    rows = []
    columns = rng.permutation(3)  # one shape in each third of the width, so none covers another
    for color, kind, column in zip(COLORS, rng.permutation(KINDS), columns, strict=True):
        side = int(rng.integers(SIDE, SIDE + 8))
        x = int(column * WIDTH // 3 + rng.integers(0, WIDTH // 3 - side + 1))
        y = int(rng.integers(0, HEIGHT - side))
        rgb = tuple(channel // 2 if night else channel for channel in COLORS[color])
        draw_shape(pen, kind, (x, y, x + side - 1, y + side - 1), rgb)
        rows.append((file, f"the {color} {kind}", x, y, side, side))
    image.save(table.parent / "images" / file)
    return rows[:2]


def desk(night: bool, rng: np.random.Generator) -> np.ndarray:
    """Wood grain, uint8 (height, width, 3); every desk has its own."""
    low, high = (20, 70) if night else (150, 245)
    grain = rng.integers(low, high, size=(HEIGHT // 6, WIDTH // 22, 1))
    wood = grain.repeat(6, axis=0).repeat(22, axis=1) * np.array([1.0, 0.92, 0.8])
    return wood.astype(np.uint8)


def draw_shape(pen: ImageDraw.ImageDraw, kind: str, box: tuple, rgb: tuple) -> None:
    """Fill one shape; `box` names its first and last pixel in x and y."""
    x1, y1, x2, y2 = box
    if kind == "circle":
        pen.ellipse(box, fill=rgb)
    elif kind == "square":
        pen.rectangle(box, fill=rgb)
    else:
        pen.polygon([((x1 + x2) // 2, y1), (x1, y2), (x2, y2)], fill=rgb)


if __name__ == "__main__":
    main()
