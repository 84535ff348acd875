"""A unit's scores: one entry a row, and what is said of all rows together. Numpy only."""

from dataclasses import dataclass, replace

import numpy as np

from vlm_r1.evaluation.diagnosis import same_accuracy
from vlm_r1.rec.boxes import from_original

OTHER_THRESHOLDS = (0.3, 0.7, 0.9)  # IoU, beside boxes.IOU_THRESHOLD


@dataclass(frozen=True)
class Scores:
    """Scores of one unit, one entry a row, in the file's order.

    Attributes:
        keys: what pairs a row with the same row of another file (question, true box, image).
        images: the cluster of each row: its image, or its true box where logs name no image.
        truth: true xyxy (n, 4), original pixels.
        boxes: predicted xyxy (n, 4), original pixels, NaN where unparsed.
        overlap: IoU (n,) in 0-1, 0 where unparsed.
        hit: bool (n,), IoU above 0.5.
        image_size, input_size: (n, 2) as (height, width) before and after the processor's resize,
            NaN where the file does not tell.
        coordinate space: the coordinate space that the answers are assumed to be written in.
        unparsed: reason -> count.
        several: answers with more than one box; one is taken.
        repaired: answers whose reversed corners were put in order.
        stated_accuracy: percent, as the file says; None where it says nothing.
        reading: "logged", or the name of the preset that read the completions.
        note: what a reader must know about the file; None where all is well.
    """

    keys: list[tuple]
    images: np.ndarray
    truth: np.ndarray
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

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.keys)

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

    @property
    def statement_holds(self) -> bool:
        """Whether the file's own accuracy is the one found here; true where it states none."""
        return self.stated_accuracy is None or same_accuracy(self.accuracy, self.stated_accuracy)

    @property
    def written(self) -> np.ndarray:
        """Predicted boxes (n, 4) in `coordinate_space`, as the answers are assumed to be written."""
        return from_original(self.boxes, self.coordinate_space, self.image_size, self.input_size)

    @property
    def sizes(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """`image_size` and `input_size`; None for one that any row does not tell."""
        sizes = (self.image_size, self.input_size)
        return tuple(None if np.isnan(size).any() else size for size in sizes)

    def accuracy_at(self, threshold: float) -> float:
        """Percent of rows with an IoU above `threshold`."""
        return 100 * float((self.overlap > threshold).mean())

    def take(self, order: list[int]) -> "Scores":
        """The rows of `order`, in that order; counts and the note stay the whole file's."""
        arrays = ("images", "truth", "boxes", "overlap", "hit", "image_size", "input_size")
        taken = {name: getattr(self, name)[order] for name in arrays}
        return replace(self, keys=[self.keys[i] for i in order], **taken)
