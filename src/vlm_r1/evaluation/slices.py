"""Slices of a test set by properties of question and image, from result rows alone. Numpy only.

Bounds are fixed rather than quantiles, so that a slice means the same in every report. Dimensions
that a log has no data for (image sizes, image names, categories) are left out with the reason.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vlm_r1.rec.prompts import expression_in
from vlm_r1.rec.results import Box, ResultRow

# fmt: off
SPATIAL_WORDS = frozenset((
    "left", "right", "leftmost", "rightmost", "top", "bottom", "topmost", "bottommost", "upper",
    "lower", "higher", "above", "below", "under", "underneath", "beneath", "between", "behind",
    "front", "back", "middle", "center", "centre", "central", "corner", "side", "beside", "next",
    "near", "nearest", "nearer", "close", "closer", "closest", "far", "farther", "farthest",
    "further", "furthest",
))
# fmt: on
SPLIT_IN_NAME = re.compile(r"_(train|val|test[A-C]?)$")
MAX_CATEGORIES = 12  # the largest; all others form one slice


@dataclass(frozen=True)
class Slice:
    """Rows with a common property: their positions `rows` (k,), ascending, at least one."""

    dimension: str
    name: str
    rows: np.ndarray


@dataclass(frozen=True)
class Slicing:
    """All slices of one test set, and the dimensions without data: dimension -> reason."""

    slices: list[Slice]
    left_out: dict[str, str]


def slice_rows(rows: Sequence[ResultRow], dataset: str) -> Slicing:
    """Slice result rows by every dimension they have data for; a dimension's slices partition them.

    Dimensions: `box_area_percent` (of the image; `box_area_px2` by COCO's bounds if image sizes are
    unknown), `box_aspect_ratio` (width / height), `phrase_words`, `spatial_words`, `objects_named`
    (number of different true boxes among the rows of one image, a lower bound of the objects in
    it), `category` and `split` (the row's own field; the split also from the dataset's name).
    """
    slices: list[Slice] = []
    left_out: dict[str, str] = {}
    for dimension, read in DIMENSIONS.items():
        names = read(rows, dataset)
        if isinstance(names, str):
            left_out[dimension] = names
        else:
            slices += _grouped(dimension, *names)
    return Slicing(slices, left_out)


def expression_of(question: str) -> str:
    """The expression inside VLM-R1's question sentence; the whole text of any other question."""
    expression = expression_in(question)
    return question if expression is None else expression


def has_spatial_word(expression: str) -> bool:
    """Whether a whole word of `expression` is in `SPATIAL_WORDS`, ignoring case."""
    return not SPATIAL_WORDS.isdisjoint(re.findall(r"[a-z]+", expression.lower()))


# The slice name of each row and all names in display order; or the reason why there are none.
Names = tuple[list[str], list[str]] | str


def _box_area_percent(rows: Sequence[ResultRow], dataset: str) -> Names:
    sizes = [row.image_size for row in rows if row.image_size is not None]
    if len(sizes) < len(rows):
        return "the log does not tell the sizes of its images"
    shares = [100 * _area(row) / (h * w) for row, (h, w) in zip(rows, sizes, strict=True)]
    return _binned(shares, [3, 10, 20], ["under 3", "3 to 10", "10 to 20", "20 and more"])


def _box_area_px2(rows: Sequence[ResultRow], dataset: str) -> Names:
    if all(row.image_size is not None for row in rows):
        return "shown as a share of the image instead"
    names = ["small, under 32 x 32", "medium, to 96 x 96", "large"]
    return _binned([_area(row) for row in rows], [32**2, 96**2], names)  # COCO's bounds


def _box_aspect_ratio(rows: Sequence[ResultRow], dataset: str) -> Names:
    ratios = [(x2 - x1) / (y2 - y1) for x1, y1, x2, y2 in (row.ground_truth for row in rows)]
    return _binned(ratios, [2 / 3, 3 / 2], ["under 2:3", "2:3 to 3:2", "3:2 and more"])


def _phrase_words(rows: Sequence[ResultRow], dataset: str) -> Names:
    words = [len(expression_of(row.question).split()) for row in rows]
    return _binned(words, [3, 5, 9], ["1 or 2", "3 or 4", "5 to 8", "9 and more"])


def _spatial_words(rows: Sequence[ResultRow], dataset: str) -> Names:
    found = [has_spatial_word(expression_of(row.question)) for row in rows]
    return [("without", "with")[has] for has in found], ["without", "with"]


def _objects_named(rows: Sequence[ResultRow], dataset: str) -> Names:
    if any(row.image is None for row in rows):
        return "the log does not name its images"
    boxes: dict[str | None, set[Box]] = defaultdict(set)
    for row in rows:
        boxes[row.image].add(row.ground_truth)
    named = [len(boxes[row.image]) for row in rows]
    return _binned(named, [2, 3, 5], ["1", "2", "3 or 4", "5 and more"])


def _category(rows: Sequence[ResultRow], dataset: str) -> Names:
    names = [str((row.model_extra or {}).get("category") or "") for row in rows]
    if not all(names):
        return "rows have no field of that name"
    kinds, counts = np.unique(names, return_counts=True)
    shown = kinds[np.argsort(-counts, kind="stable")][:MAX_CATEGORIES].tolist()
    return [name if name in shown else "others" for name in names], [*shown, "others"]


def _split(rows: Sequence[ResultRow], dataset: str) -> Names:
    names = [str((row.model_extra or {}).get("split") or "") for row in rows]
    if all(names):
        return names, sorted(set(names))
    in_name = SPLIT_IN_NAME.search(dataset)
    if in_name is None:
        return "neither rows nor the dataset's name tell a split"
    return [in_name[1]] * len(rows), [in_name[1]]


DIMENSIONS: dict[str, Callable[[Sequence[ResultRow], str], Names]] = {
    "box_area_percent": _box_area_percent,
    "box_area_px2": _box_area_px2,
    "box_aspect_ratio": _box_aspect_ratio,
    "phrase_words": _phrase_words,
    "spatial_words": _spatial_words,
    "objects_named": _objects_named,
    "category": _category,
    "split": _split,
}


def _area(row: ResultRow) -> float:
    x1, y1, x2, y2 = row.ground_truth
    return (x2 - x1) * (y2 - y1)


def _binned(values: Sequence[float], bounds: Sequence[float], names: list[str]) -> Names:
    """Slices between ascending `bounds`; a value equal to a bound belongs to the slice above it."""
    return [names[i] for i in np.digitize(values, bounds)], names


def _grouped(dimension: str, names: list[str], order: list[str]) -> list[Slice]:
    of_row = np.array(names)
    found = [Slice(dimension, name, np.flatnonzero(of_row == name)) for name in order]
    return [one for one in found if len(one.rows)]
