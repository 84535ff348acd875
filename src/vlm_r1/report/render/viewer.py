"""rows.html: every tested row with its image, boxes and answers, to filter; works from disk.

The page loads its data as scripts, because a page opened from disk may not read files: one part for
each dataset's rows, for each method and step, and for every 100 images, each only when it is shown.
A part is JSON, compressed, in base64.
"""

import base64
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlm_r1.config import METHODS
from vlm_r1.data.images import open_image
from vlm_r1.evaluation.slices import expression_of, slice_rows
from vlm_r1.report.render.labels import DIMENSION_LABELS, ROLES
from vlm_r1.report.render.page import render_rows
from vlm_r1.report.results_table import TESTED, EvalResult, ResultsTable

IMAGES_A_PART = 100
IMAGE_SIDE_PX, IMAGE_QUALITY = 320, 70  # longest side; of WebP


def write_viewer(
    table: ResultsTable,
    images: dict[str, Path] | None,
    unfair: list[str],
    folder: Path,
) -> None:
    """Write rows.html and its data, rows/*.js, into `folder`; of several runs the first is shown.

    Args:
        images: folder of each dataset's images; None shows rows without images.
        unfair: terms that differ, which the page then names.

    Raises:
        DataError: an image is missing or broken.
    """
    parts = folder / "rows"
    parts.mkdir()
    index = [
        _write_dataset(parts, number, table, name, None if images is None else images[name])
        for number, name in enumerate(table.datasets(*TESTED))
    ]
    page = render_rows(index, IMAGES_A_PART, unfair, several=len(table.seeds) > 1)
    (folder / "rows.html").write_text(page, encoding="utf-8")


def _write_dataset(
    parts: Path, number: int, table: ResultsTable, name: str, images: Path | None
) -> dict[str, Any]:
    """Write a dataset's parts; returns what the page must know to ask for them."""
    first = table.first(name)
    steps = {method: table.steps(method, name) for method in METHODS}
    shown = images is not None and first.rows.names_all_images
    names = list(dict.fromkeys(first.rows.records.image)) if shown else []
    _write_part(parts, f"{number}", _rows(first, names))
    for method, of_method in steps.items():
        for step in of_method:
            answers = _answers(table[method, name, step].first)
            _write_part(parts, f"{number}-{method}-{step}", answers)
    if images is not None:
        for start in range(0, len(names), IMAGES_A_PART):
            chosen = names[start : start + IMAGES_A_PART]
            pictures = [_image(images / image) for image in chosen]
            _write_part(parts, f"{number}-images-{start // IMAGES_A_PART}", pictures)
    label = f"{name}, {ROLES[first.role]}"
    return {
        "label": label,
        "steps": steps,
        "images": len(names),
        "common": table.common_steps(name),
    }


def _rows(result: EvalResult, names: list[str]) -> dict[str, Any]:
    """The rows of a dataset: what is asked, where the true box is, and which slices they are in."""
    place = {image: i for i, image in enumerate(names)}
    slices = slice_rows(result.rows, result.dataset).slices
    return {
        "expressions": [expression_of(question) for question in result.rows.records.question],
        "images": [place.get(image) for image in result.rows.records.image],
        "boxes": [_drawn(result.scores.true_boxes_of(i)) for i in range(result.scores.n)],
        "slices": [
            {"label": f"{DIMENSION_LABELS[s.dimension]}: {s.name}", "rows": s.rows.tolist()}
            for s in slices
        ],
    }


def _answers(result: EvalResult) -> dict[str, Any]:
    """One method's answers at one step; a box is null where none could be read."""
    return {
        "boxes": [_drawn(result.scores.boxes_of(i)) for i in range(result.scores.n)],
        "ious": result.scores.overlap.round(3).tolist(),
        "hits": result.scores.hit.astype(int).tolist(),
        "texts": list(result.rows.completion),
    }


def _drawn(boxes: list[list[float]]) -> list[Any] | None:
    """A row's box, rounded; a list of boxes if there are several, None if there is none."""
    rounded = np.round(boxes, 1).tolist()
    return rounded if len(rounded) > 1 else next(iter(rounded), None)


def _image(file: Path) -> dict[str, Any]:
    """A small copy as a data URL, with the size (width, height) that boxes are in."""
    image = open_image(file)
    size = image.size
    image.thumbnail((IMAGE_SIDE_PX, IMAGE_SIDE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=IMAGE_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"size": size, "url": f"data:image/webp;base64,{data}"}


def _write_part(parts: Path, name: str, content: Any) -> None:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    packed = base64.b64encode(gzip.compress(text.encode("utf-8"), mtime=0)).decode("ascii")
    (parts / f"{name}.js").write_text(f'receive("{name}", "{packed}");\n', encoding="ascii")
