"""Coordinate space check: do the boxes score better when read in another coordinate space?

A model that writes 0-1000 coordinates and is read in pixels looks as if it could not ground
anything. Every evaluation is therefore scored in each coordinate space whose sizes are known, and
it is an error if one of them is significantly better than the assumed one. Numpy and scipy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlm_r1.errors import ResultError
from vlm_r1.rec.boxes import COORDINATE_SPACES, iou, is_hit, to_original
from vlm_r1.rec.parsing import Parsed, parse_answer
from vlm_r1.rec.results import ResultRow
from vlm_r1.stats.clustered import DEFAULT_CONFIDENCE
from vlm_r1.stats.intervals import Difference, paired_difference

WORDS = {
    "original": "original pixels",
    "input": "input pixels",
    "thousand": "0-1000",
    "unit": "0-1",
}


@dataclass(frozen=True)
class WrittenBoxes:
    """Boxes as a model wrote them, with all that is needed to read them in a coordinate space.

    Attributes:
        boxes: (n, 4) xyxy as written; NaN where unparsed.
        true_boxes: (n, 4) xyxy, original pixels.
        images: (n,), the image (cluster) of each row.
        assumed: the coordinate space that `boxes` are taken to be in, one of `COORDINATE_SPACES`.
        image_size, input_size: (n, 2) as (height, width) before and after the processor's resize;
            None if any row lacks its own.
    """

    boxes: np.ndarray
    true_boxes: np.ndarray
    images: np.ndarray
    assumed: str
    image_size: np.ndarray | None = None
    input_size: np.ndarray | None = None

    @classmethod
    def from_rows(cls, rows: Sequence[ResultRow], assumed: str) -> "WrittenBoxes":
        """The boxes in the raw completions of result rows that name their images."""
        answers = [parse_answer(row.model_output) for row in rows]
        return cls(
            boxes=np.array([a.box if isinstance(a, Parsed) else (np.nan,) * 4 for a in answers]),
            true_boxes=np.array([row.ground_truth for row in rows]),
            images=np.array([row.image for row in rows]),
            assumed=assumed,
            image_size=sizes_or_none([row.image_size for row in rows]),
            input_size=sizes_or_none([row.input_size for row in rows]),
        )

    def in_original(self, coordinate_space: str) -> np.ndarray | None:
        """Boxes (n, 4) in original pixels, read in `coordinate_space`; None if it lacks sizes."""
        boxes = np.asarray(self.boxes, dtype=np.float64)
        if coordinate_space == "original":
            return boxes
        if self.image_size is None or (coordinate_space == "input" and self.input_size is None):
            return None
        # Only `input` uses the input size.
        input_size = self.image_size if self.input_size is None else self.input_size
        return to_original(boxes, coordinate_space, self.image_size, input_size)

    def require_assumed(self) -> np.ndarray:
        """Boxes (n, 4) in original pixels, read in the assumed coordinate space.

        Raises:
            ResultError: that coordinate space needs sizes that the rows lack.
        """
        boxes = self.in_original(self.assumed)
        if boxes is None:
            raise ResultError(
                got=f"boxes in {WORDS[self.assumed]} without the sizes of their images",
                need="image_size and input_size in every row",
                because="boxes are compared with true boxes in original pixels",
                do="evaluate again, or name the coordinate space the boxes are in",
            )
        return boxes


@dataclass(frozen=True)
class CoordinateSpaceCheck:
    """How the boxes of one result score in every coordinate space.

    Attributes:
        assumed: the coordinate space the boxes were taken to be in.
        best: the most accurate of the significantly better coordinate spaces; `assumed` if there
            is none.
        accuracy: coordinate space -> percent, for every coordinate space whose sizes are known.
        gain: of `best` over `assumed`, at the corrected confidence; None if they are the same.
    """

    assumed: str
    best: str
    accuracy: dict[str, float]
    gain: Difference | None

    @property
    def sentence(self) -> str:
        """The scores in words: the assumed coordinate space first, then the best one."""
        ordered = dict.fromkeys([self.assumed, self.best, *self.accuracy])
        scores = [f"{self.accuracy[space]:.1f} % as {WORDS[space]}" for space in ordered]
        return f"boxes score {', '.join(scores)}"


def check_coordinate_space(
    boxes: WrittenBoxes, confidence: float = DEFAULT_CONFIDENCE, tests: int = 1
) -> CoordinateSpaceCheck:
    """Score boxes in every coordinate space whose sizes are known.

    Another coordinate space counts as better if the interval of its gain, paired over images, lies
    above zero, Bonferroni-corrected for the coordinate spaces tried and for `tests`.

    Args:
        tests: number of results checked in the same run, so that checking many of them does not
            make a false alarm more likely.

    Raises:
        ResultError: the assumed coordinate space needs sizes that the rows lack.
    """
    assumed_hit = is_hit(iou(boxes.require_assumed(), boxes.true_boxes))
    hits = _hits_by_space(boxes)
    others = {space: hit for space, hit in hits.items() if space != boxes.assumed}
    if len(np.unique(boxes.images)) < 2:
        others = {}  # one image cannot show that a gain is more than chance
    error_rate = (1 - confidence) / (tests * max(1, len(others)))
    best, best_gain = boxes.assumed, None
    for space, hit in others.items():
        gain = paired_difference(hit, assumed_hit, boxes.images, 1 - error_rate)
        if gain.low > 0 and (best_gain is None or gain.mean > best_gain.mean):
            best, best_gain = space, gain
    accuracy = {space: 100 * float(hit.mean()) for space, hit in hits.items()}
    return CoordinateSpaceCheck(boxes.assumed, best, accuracy, best_gain)


def require_coordinate_space(check: CoordinateSpaceCheck, source: str) -> None:
    """Refuse boxes that score significantly better in a coordinate space other than the assumed.

    Raises:
        ResultError: names `source`, both coordinate spaces and their scores.
    """
    if check.gain is None:
        return
    gain = check.gain
    raise ResultError(
        got=f"{source}: {check.sentence} ({gain.mean:+.1f} points, interval {gain.low:+.1f} "
        f"to {gain.high:+.1f})",
        need=f"boxes that score best as {WORDS[check.assumed]}, the coordinate space they are "
        "read in",
        because="boxes in another coordinate space measure coordinates, not grounding",
        do=f"set task.coordinate_space to `{check.best}` if that is what the model writes, or look "
        "for a resize that training and evaluation do not share",
    )


def sizes_or_none(sizes: Sequence[tuple[int, int] | None]) -> np.ndarray | None:
    """Sizes (n, 2) as (height, width); None if any is missing."""
    return None if any(size is None for size in sizes) else np.array(sizes, dtype=np.float64)


def _hits_by_space(boxes: WrittenBoxes) -> dict[str, np.ndarray]:
    """Coordinate space -> hits, bool (n,), for every coordinate space whose sizes are known."""
    read = {space: boxes.in_original(space) for space in COORDINATE_SPACES}
    return {
        space: is_hit(iou(original, boxes.true_boxes))
        for space, original in read.items()
        if original is not None
    }
