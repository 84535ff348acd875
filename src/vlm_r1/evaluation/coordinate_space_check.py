"""Coordinate space check: do the boxes score better when read in another coordinate space?

A model that writes 0-1000 coordinates and is read in pixels looks as if it could not ground
anything. Every evaluation is therefore scored in each coordinate space whose sizes are known. A
large gain at step 0 or at every trained step is an error; any other significant gain is a result,
which is marked. Numpy and scipy only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm_r1.errors import ResultError
from vlm_r1.rec.boxes import COORDINATE_SPACES, iou, is_hit, to_original
from vlm_r1.rec.objects import hull
from vlm_r1.rec.parsing import Parsed, parse_answer, parse_boxes
from vlm_r1.rec.results import ResultRow
from vlm_r1.stats.clustered import DEFAULT_CONFIDENCE
from vlm_r1.stats.intervals import Difference, paired_difference

# The share of the boxes found in the better coordinate space that is a large loss. It lies between
# what right and wrong configurations lose (docs/reading-the-report.md): Qwen2.5-VL read in original
# pixels, as VLM-R1 did, loses 3 % (3B) and 8 % (7B) of its boxes on RefGTA; with the pixel budget
# of VLM-R1's first SFT, 262144, it loses 28 % on RefCOCO's photos.
LARGE_LOSS = 0.2

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
        return cls(
            boxes=np.array([_written_box(row) for row in rows]),
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


def _written_box(row: ResultRow) -> np.ndarray:
    """The box of an answer (4,) as written; of a detection row, the smallest around its boxes.

    Scaling both axes keeps it the smallest, so it can be read in every coordinate space.
    """
    if row.true_objects is not None:
        return hull(np.reshape(parse_boxes(row.model_output), (-1, 4)))
    answer = parse_answer(row.model_output)
    return np.array(answer.box if isinstance(answer, Parsed) else (np.nan,) * 4)


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
    def is_large(self) -> bool:
        """True if at least `LARGE_LOSS` of the boxes found in `best` are missed in `assumed`."""
        most = (1 - LARGE_LOSS) * self.accuracy[self.best]
        return self.gain is not None and self.accuracy[self.assumed] <= most

    @property
    def sentence(self) -> str:
        """The scores in words: the assumed coordinate space first, then the best one."""
        ordered = dict.fromkeys([self.assumed, self.best, *self.accuracy])
        scores = [f"{self.accuracy[space]:.1f} % as {WORDS[space]}" for space in ordered]
        text = f"boxes score {', '.join(scores)}"
        if self.gain is None:
            return text
        mean, low, high, _ = self.gain
        return f"{text} ({mean:+.1f} points, interval {low:+.1f} to {high:+.1f})"

    def to_meta(self) -> dict[str, Any] | None:
        """What a result file's `meta` says; None if no other coordinate space is better."""
        if self.gain is None:
            return None
        mean, low, high, p_value = self.gain
        return {
            "assumed": self.assumed,
            "better": self.best,
            "accuracy": self.accuracy,
            "gain": mean,
            "ci_low": low,
            "ci_high": high,
            "p_value": p_value,
            "large": self.is_large,
        }


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


def require_coordinate_space(checks: Mapping[str, CoordinateSpaceCheck]) -> None:
    """Refuse results that all score far better in a coordinate space other than the assumed.

    Args:
        checks: name of each result -> its check: step 0 alone, where nothing is trained yet, or
            every trained step of a run on one dataset. What only some of them show came about by
            training and is a result.

    Raises:
        ResultError: names the results, both coordinate spaces and the first one's scores.
    """
    if not checks or not all(check.is_large for check in checks.values()):
        return
    (source, check), *others = checks.items()
    also = f", and as much in {', '.join(name for name, _ in others)}" if others else ""
    raise ResultError(
        got=f"{source}: {check.sentence}{also}",
        need=f"boxes of which reading them as {WORDS[check.assumed]} loses less than "
        f"{LARGE_LOSS:.0%}",
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
