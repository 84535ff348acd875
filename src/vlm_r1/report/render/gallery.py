"""The gallery: chosen test rows, each image drawn with the true box and both answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vlm_r1.config import METHODS
from vlm_r1.data.images import draw_boxes, open_image
from vlm_r1.evaluation.slices import expression_of
from vlm_r1.report.render.drawing import COLORS
from vlm_r1.report.results_table import TESTED, EvalResult, ResultsTable

SMALL_PX, LARGE_PX = 420, 960  # longer side of an image in the gallery
LINE_PX, HALO_PX, DASH_PX = 4, 1, 9
TRUE_BOX_COLOR = "#FFFFFF"

Box = Sequence[float]  # xyxy

# Who was right, most informative first; a group is used up before the next begins.
GROUPS = (("grpo", "sft"), ("neither",), ("both",))


class CaseRow(NamedTuple):
    """A row of `dataset` in which `right` (grpo, sft, neither or both) was right."""

    dataset: str
    right: str
    row: int


@dataclass(frozen=True)
class Answer:
    """One method's answer; `boxes` are in original pixels, empty if the parser found none."""

    completion: str
    boxes: list[Box]
    iou: float
    hit: bool


@dataclass(frozen=True)
class GalleryCase:
    """One row at the last common step; boxes are in original pixels."""

    name: str  # of its file in gallery/, without extension
    dataset: str
    role: str
    step: int
    right: str  # grpo, sft, neither or both
    expression: str
    true_boxes: list[Box]  # one, or those of all objects of a detection row
    answers: dict[str, Answer]
    png: bytes | None  # None where logs come without images


def choose_cases(
    table: ResultsTable, count: int, seed: int, images: dict[str, Path] | None
) -> list[GalleryCase]:
    """Up to `count` cases, no image twice; first those that only one method got right.

    Datasets and winners take turns, so that both methods and both domains are shown equally often.
    Within one of them the order is random (`seed`), to rule out cherry-picking.

    Args:
        images: folder of each dataset's images; None gives cases without images.

    Raises:
        DataError: an image is missing or broken.
    """
    chosen = _choose_rows(table, count, seed)
    order = {name: i for i, name in enumerate(table.datasets(*TESTED))}
    ranks = {right: i for i, right in enumerate(chain(*GROUPS))}
    chosen.sort(key=lambda row: (ranks[row.right], order[row.dataset]))
    return [_case(table, number, row, images) for number, row in enumerate(chosen, start=1)]


def _choose_rows(table: ResultsTable, count: int, seed: int) -> list[CaseRow]:
    rng = np.random.default_rng(seed)
    chosen: list[CaseRow] = []
    seen: set[tuple[str, str]] = set()
    for group in GROUPS:
        cells = [(dataset, right) for dataset in table.datasets(*TESTED) for right in group]
        pools = [_rows_won_by(right, table, dataset, rng) for dataset, right in cells]
        for row in _in_turn(pools):
            image = (row.dataset, table.first(row.dataset).scores.images[row.row])
            if len(chosen) < count and image not in seen:
                seen.add(image)
                chosen.append(row)
    return chosen


def _rows_won_by(
    right: str, table: ResultsTable, dataset: str, rng: np.random.Generator
) -> list[CaseRow]:
    """The rows in which `right` was right at the last common step, shuffled."""
    step = table.common_steps(dataset)[-1]
    grpo, sft = (table[m, dataset, step].first.scores.hit for m in ("grpo", "sft"))
    chosen = {
        "grpo": grpo & ~sft,
        "sft": sft & ~grpo,
        "neither": ~grpo & ~sft,
        "both": grpo & sft,
    }[right]
    shuffled = rng.permutation(np.flatnonzero(chosen)).tolist()
    return [CaseRow(dataset, right, row) for row in shuffled]


def _in_turn(pools: list[list[CaseRow]]) -> list[CaseRow]:
    """The first of every pool, then the second of every pool, and so on."""
    return [row for turn in zip_longest(*pools) for row in turn if row is not None]


def _case(
    table: ResultsTable, number: int, row: CaseRow, images: dict[str, Path] | None
) -> GalleryCase:
    step = table.common_steps(row.dataset)[-1]
    results = {method: table[method, row.dataset, step].first for method in METHODS}
    shown = results["grpo"].rows[row.row]
    true_boxes = results["grpo"].scores.true_boxes_of(row.row)
    answers: dict[str, Answer] = {m: _answer(result, row.row) for m, result in results.items()}
    png = None
    if images is not None and shown.image is not None:
        image = open_image(images[row.dataset] / shown.image)
        png = draw_case(image, true_boxes, answers["sft"].boxes, answers["grpo"].boxes)
    return GalleryCase(
        name=f"case-{number:02d}",
        dataset=row.dataset,
        role=results["grpo"].role,
        step=step,
        right=row.right,
        expression=expression_of(shown.question),
        true_boxes=true_boxes,
        answers=answers,
        png=png,
    )


def _answer(result: EvalResult, row: int) -> Answer:
    return Answer(
        completion=result.rows[row].model_output,
        boxes=result.scores.boxes_of(row),
        iou=float(result.scores.overlap[row]),
        hit=bool(result.scores.hit[row]),
    )


def draw_case(
    image: Image.Image, true_boxes: Sequence[Box], sft: Sequence[Box], grpo: Sequence[Box]
) -> bytes:
    """PNG of the image, scaled to a visible size, with its boxes (xyxy, original pixels).

    A true box is white, grpo's is solid, sft's is dashed and on top, so that equal boxes show.
    """
    longer = max(image.size)
    scale = max(1, round(SMALL_PX / longer)) if longer < SMALL_PX else min(1, LARGE_PX / longer)
    width, height = (max(1, round(side * scale)) for side in image.size)
    resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    shown = image.resize((width, height), resample)
    for boxes, color, halo in (
        (true_boxes, TRUE_BOX_COLOR, "black"),
        (grpo, COLORS["grpo"], "white"),
    ):
        for box in boxes:
            line = np.multiply(box, scale)
            around = line + np.array((-1, -1, 1, 1)) * HALO_PX
            draw_boxes(shown, [(around.tolist(), halo)], LINE_PX + 2 * HALO_PX)
            draw_boxes(shown, [(line.tolist(), color)], LINE_PX)
    if sft:
        solid, color = shown.copy(), COLORS["sft"]
        draw_boxes(solid, [(np.multiply(box, scale).tolist(), color) for box in sft], LINE_PX)
        shown.paste(solid, mask=_stripes(width, height))  # diagonal stripes cut it into dashes
    buffer = BytesIO()
    shown.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _stripes(width: int, height: int) -> Image.Image:
    """A mask (L) of diagonal stripes, 255 and 0 in turn, each DASH_PX wide along both axes."""
    rows, columns = np.ogrid[:height, :width]
    return Image.fromarray((((rows + columns) // DASH_PX) % 2 * 255).astype(np.uint8))
