"""The scores of one result: one entry per row, and summaries over all rows. Numpy only."""

from dataclasses import dataclass, replace

import numpy as np

from vlm_r1.evaluation.coordinate_space_check import WrittenBoxes
from vlm_r1.evaluation.detection import RowObjects
from vlm_r1.evaluation.diagnosis import same_accuracy
from vlm_r1.rec.boxes import from_original

OTHER_THRESHOLDS = (0.3, 0.7, 0.9)  # IoU, besides boxes.IOU_THRESHOLD


@dataclass(frozen=True)
class Scores:
    """Scores of one result, one entry per row, in the file's order.

    Attributes:
        images: (n,), the cluster of each row: its image, or its true box if the log names no image.
        true_boxes: (n, 4) xyxy, original pixels.
        boxes: predicted (n, 4) xyxy, original pixels; NaN where unparsed.
        overlap: IoU (n,) in 0-1; 0 where unparsed. Of a detection row, `Matches.weakest`.
        hit: bool (n,), overlap above 0.5.
        image_size, input_size: (n, 2) as (height, width) before and after the processor's resize;
            NaN where the file does not give it.
        coordinate_space: the coordinate space that the answers are assumed to be written in.
        unparsed: reason -> count.
        several: number of answers with more than one box, of which one is used.
        repaired: number of answers whose reversed corners were put in order.
        stated_accuracy: percent, as stated in the file; None if it states none.
        reading: "logged", or the name of the preset that read the completions.
        note: what a reader should know about the file; None if there is nothing.
        objects: all boxes of each row, and how many of them match; None of a file without
            detection rows. Of such a row, `true_boxes` and `boxes` are the smallest boxes around
            all of them.
    """

    images: np.ndarray
    true_boxes: np.ndarray
    boxes: np.ndarray
    overlap: np.ndarray
    hit: np.ndarray
    image_size: np.ndarray
    input_size: np.ndarray
    coordinate_space: str
    unparsed: dict[str, int]
    several: int
    repaired: int
    stated_accuracy: float | None
    reading: str
    note: str | None = None
    objects: RowObjects | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.hit)

    @property
    def accuracy(self) -> float:
        """Percent of rows with a hit."""
        return 100 * float(self.hit.mean())

    @property
    def mean_iou(self) -> float:
        """Mean over all rows (0-1); an unparsed row counts as 0."""
        return float(self.overlap.mean())

    @property
    def parse_rate(self) -> float:
        """Share of rows (0-1) from which a box could be read."""
        return 1 - sum(self.unparsed.values()) / self.n

    def true_boxes_of(self, row: int) -> list[list[float]]:
        """All true boxes of a row: one, or those of its objects."""
        found = self.true_boxes[row : row + 1] if self.objects is None else self.objects.true[row]
        return [box.tolist() for box in found]

    def boxes_of(self, row: int) -> list[list[float]]:
        """All answered boxes of a row that are scored; empty where unparsed."""
        found = self.boxes[row : row + 1] if self.objects is None else self.objects.answered[row]
        return [box.tolist() for box in found if not np.isnan(box).any()]

    @property
    def written_boxes(self) -> WrittenBoxes:
        """The predicted boxes in the coordinate space that the answers are assumed to use."""
        return WrittenBoxes(
            boxes=from_original(
                self.boxes, self.coordinate_space, self.image_size, self.input_size
            ),
            true_boxes=self.true_boxes,
            images=self.images,
            assumed=self.coordinate_space,
            image_size=_complete(self.image_size),
            input_size=_complete(self.input_size),
        )

    def states_other_accuracy(self) -> bool:
        """Whether the file states an accuracy other than that of its rows."""
        return self.stated_accuracy is not None and not same_accuracy(
            self.accuracy, self.stated_accuracy
        )

    def accuracy_at(self, threshold: float) -> float:
        """Percent of rows with an IoU above `threshold`."""
        return 100 * float((self.overlap > threshold).mean())

    def take(self, order: list[int]) -> "Scores":
        """The rows at positions `order`, in that order; counts and note stay the whole file's."""
        return replace(
            self,
            images=self.images[order],
            true_boxes=self.true_boxes[order],
            boxes=self.boxes[order],
            overlap=self.overlap[order],
            hit=self.hit[order],
            image_size=self.image_size[order],
            input_size=self.input_size[order],
            objects=None if self.objects is None else self.objects.take(order),
        )


def _complete(sizes: np.ndarray) -> np.ndarray | None:
    """Sizes (n, 2); None if any row lacks its own."""
    return None if np.isnan(sizes).any() else sizes
