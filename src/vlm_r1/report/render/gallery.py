"""Cases to look at: images with the true box and both answers, drawn for the page."""

from dataclasses import dataclass
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from vlm_r1.config import METHODS
from vlm_r1.data.images import open_image
from vlm_r1.evaluation.slices import expression_of
from vlm_r1.report.render.png_curves import COLORS
from vlm_r1.report.results_table import TESTED, EvalResult, ResultsTable

SMALL_PX, LARGE_PX = 420, 960  # longer side of an image in the gallery
LINE_PX, HALO_PX, DASH_PX = 4, 2, 9
TRUTH_COLOR = "#FFFFFF"

# Who was right, the telling cases first; each stage is used up before the next begins.
STAGES = (("grpo", "sft"), ("neither",), ("both",))


class Pick(NamedTuple):
    """A row of `dataset` in which `right` (grpo, sft, neither or both) was right."""

    dataset: str
    right: str
    row: int


@dataclass(frozen=True)
class Answer:
    """One method's answer to a case; `box` in original pixels, None where none was read."""

    completion: str
    box: tuple[float, ...] | None
    iou: float
    hit: bool


@dataclass(frozen=True)
class Case:
    """One row at the last common step. `png` is None where logs come without images."""

    name: str  # of its file in gallery/, without extension
    dataset: str
    role: str
    step: int
    right: str  # grpo, sft, neither or both
    phrase: str
    truth: tuple[float, ...]
    answers: dict[str, Answer]
    png: bytes | None


def choose_cases(
    table: ResultsTable, count: int, seed: int, images: dict[str, Path] | None
) -> list[Case]:
    """Up to `count` cases, no image twice: first those that only one method got right.

    Taken in turn from every dataset and winner, so that both methods and both domains are shown
    alike; within one of these at random (`seed`), so that no one picks the cherries.

    Args:
        images: folder of each dataset's images; None shows text only.

    Raises:
        DataError: an image is missing or broken.
    """
    picks = _picks(table, count, seed)
    order = {name: i for i, name in enumerate(table.datasets(*TESTED))}
    ranks = {right: i for i, right in enumerate(sum(STAGES, ()))}
    picks.sort(key=lambda pick: (ranks[pick.right], order[pick.dataset]))
    return [_case(table, number, pick, images) for number, pick in enumerate(picks, start=1)]


def _picks(table: ResultsTable, count: int, seed: int) -> list[Pick]:
    rng = np.random.default_rng(seed)
    picks: list[Pick] = []
    seen: set[tuple[str, str]] = set()
    for stage in STAGES:
        cells = [(dataset, right) for dataset in table.datasets(*TESTED) for right in stage]
        pools = [_candidates(table, dataset, right, rng) for dataset, right in cells]
        for pick in _in_turn(pools):
            image = (pick.dataset, table.first(pick.dataset).scores.images[pick.row])
            if len(picks) < count and image not in seen:
                seen.add(image)
                picks.append(pick)
    return picks


def _candidates(
    table: ResultsTable, dataset: str, right: str, rng: np.random.Generator
) -> list[Pick]:
    """The rows in which `right` was right at the last common step, shuffled."""
    step = table.common_steps(dataset)[-1]
    grpo, sft = (table[m, dataset, step].first.scores.hit for m in ("grpo", "sft"))
    chosen = {
        "grpo": grpo & ~sft,
        "sft": sft & ~grpo,
        "neither": ~grpo & ~sft,
        "both": grpo & sft,
    }[right]
    return [Pick(dataset, right, row) for row in rng.permutation(np.flatnonzero(chosen)).tolist()]


def _in_turn(pools: list[list[Pick]]) -> list[Pick]:
    """The first of every pool, then the second of every pool, and so on."""
    return [pick for turn in zip_longest(*pools) for pick in turn if pick is not None]


def _case(table: ResultsTable, number: int, pick: Pick, images: dict[str, Path] | None) -> Case:
    dataset, right, row = pick
    step = table.common_steps(dataset)[-1]
    results = {method: table[method, dataset, step].first for method in METHODS}
    shown = results["grpo"].rows[row]
    answers = {method: _answer(result, row) for method, result in results.items()}
    png = None
    if images is not None:
        boxes = {method: answer.box for method, answer in answers.items()}
        png = draw_boxes(open_image(images[dataset] / shown.image), shown.ground_truth, boxes)
    return Case(
        name=f"case-{number:02d}",
        dataset=dataset,
        role=results["grpo"].role,
        step=step,
        right=right,
        phrase=expression_of(shown.question),
        truth=shown.ground_truth,
        answers=answers,
        png=png,
    )


def _answer(result: EvalResult, row: int) -> Answer:
    box = result.scores.boxes[row]
    return Answer(
        completion=result.rows[row].model_output,
        box=None if np.isnan(box).any() else tuple(box.tolist()),
        iou=float(result.scores.overlap[row]),
        hit=bool(result.scores.hit[row]),
    )


def draw_boxes(
    image: Image.Image, truth: tuple[float, ...], boxes: dict[str, tuple[float, ...] | None]
) -> bytes:
    """PNG of the image, brought to a size one can see, with its boxes (original pixels).

    The true box is white, grpo's is solid, sft's is dashed and on top, so that equal boxes show.
    """
    longer = max(image.size)
    scale = max(1, round(SMALL_PX / longer)) if longer < SMALL_PX else min(1, LARGE_PX / longer)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    shown = image.resize(size, resample)
    draw = ImageDraw.Draw(shown)
    _draw_box(draw, truth, scale, size, TRUTH_COLOR, halo="black")
    if boxes["grpo"] is not None:
        _draw_box(draw, boxes["grpo"], scale, size, COLORS["grpo"], halo="white")
    if boxes["sft"] is not None:
        _draw_box(draw, boxes["sft"], scale, size, COLORS["sft"], dashed=True)
    buffer = BytesIO()
    shown.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _draw_box(
    draw: ImageDraw.ImageDraw,
    box: tuple[float, ...],
    scale: float,
    size: tuple[int, int],
    color: str,
    halo: str | None = None,
    dashed: bool = False,
) -> None:
    """An outline; a box that leaves the image is drawn along its edge."""
    x1, x2 = (float(np.clip(x * scale, 1, size[0] - 2)) for x in (box[0], box[2]))
    y1, y2 = (float(np.clip(y * scale, 1, size[1] - 2)) for y in (box[1], box[3]))
    sides = [(x1, y1, x2, y1), (x2, y1, x2, y2), (x2, y2, x1, y2), (x1, y2, x1, y1)]
    lines = [line for side in sides for line in (_dashes(side) if dashed else [side])]
    for line in lines if halo is not None else []:
        draw.line(line, fill=halo, width=LINE_PX + HALO_PX)
    for line in lines:
        draw.line(line, fill=color, width=LINE_PX)


def _dashes(side: tuple[float, float, float, float]) -> list[tuple[float, float, float, float]]:
    start, end = np.array(side[:2]), np.array(side[2:])
    length = float(np.abs(end - start).sum())
    stops = np.arange(0, max(length, 1), 2 * DASH_PX)
    way = (end - start) / max(length, 1)
    return [(*(start + way * at), *(start + way * min(at + DASH_PX, length))) for at in stops]
