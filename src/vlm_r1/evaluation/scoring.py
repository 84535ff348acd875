"""One scorer for every method and every log: rows -> IoU, hits, parse reasons, pictures.

Scores are always recomputed from the raw completion with the one parser; the accuracy that a file
states is only compared with, never believed.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from vlm_r1.answers import Parsed, parse_answer
from vlm_r1.boxes import iou, is_hit, to_original
from vlm_r1.results import ResultFile, ResultRow

STATED_TOLERANCE = 0.05  # percent points; files round their accuracy to two digits


@dataclass(frozen=True)
class Scores:
    """Scores of one unit, one entry a row, in the file's order.

    Attributes:
        keys: what pairs a row with the same row of another file (question and true box).
        pictures: the cluster of each row: its image, or its true box where logs name no image.
        overlap: IoU (n,) in 0-1, 0 where unparsed.
        hit: bool (n,), IoU above 0.5.
        boxes: predicted xyxy (n, 4), original pixels, NaN where unparsed.
        unparsed: reason -> count.
        stated_accuracy: percent, as the file says.
    """

    keys: list[tuple]
    pictures: np.ndarray
    overlap: np.ndarray
    hit: np.ndarray
    boxes: np.ndarray
    unparsed: dict[str, int]
    stated_accuracy: float

    @property
    def n(self) -> int:
        return len(self.keys)

    @property
    def accuracy(self) -> float:
        """Percent of rows with a hit."""
        return 100 * float(self.hit.mean())

    @property
    def mean_iou(self) -> float:
        return float(self.overlap.mean())

    @property
    def parse_rate(self) -> float:
        """Share of rows (0-1) from which a box could be read."""
        return 1 - sum(self.unparsed.values()) / self.n

    @property
    def statement_holds(self) -> bool:
        return abs(self.accuracy - self.stated_accuracy) <= STATED_TOLERANCE


def score_results(result: ResultFile) -> Scores:
    """Parse and score every row; the frame is the contract's, or original pixels without one."""
    frame = ((result.meta or {}).get("contract") or {}).get("frame", "original")
    parsed = [parse_answer(row.model_output) for row in result.results]
    boxes = np.array(
        [
            answered_box(answer, frame, row)
            for answer, row in zip(parsed, result.results, strict=True)
        ]
    ).reshape(-1, 4)
    truth = np.array([row.ground_truth for row in result.results]).reshape(-1, 4)
    overlap = iou(boxes, truth)
    return Scores(
        keys=[(row.question, row.ground_truth, row.image) for row in result.results],
        pictures=np.array([_picture(row) for row in result.results]),
        overlap=overlap,
        hit=is_hit(overlap),
        boxes=boxes,
        unparsed=dict(Counter(a.reason for a in parsed if not isinstance(a, Parsed))),
        stated_accuracy=result.accuracy,
    )


def answered_box(answer: object, frame: str, row: ResultRow) -> np.ndarray:
    """The answer's box (4,) in original pixels; NaN where there is none."""
    if not isinstance(answer, Parsed):
        return np.full(4, np.nan)
    if frame == "original":
        return np.array(answer.box)
    return to_original(np.array(answer.box), frame, row.image_size, row.input_size)


def _picture(row: ResultRow) -> str:
    return row.image if row.image is not None else str(row.ground_truth)
