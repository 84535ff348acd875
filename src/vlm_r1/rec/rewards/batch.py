"""What a reward judges: completions, their true boxes, and the boxes that they answer with."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vlm_r1.rec import boxes
from vlm_r1.rec.parsing import Parsed, parse_answer, parse_labeled_boxes

Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True)
class Batch:
    """n completions of any number of prompts; each is parsed once for all rewards.

    Attributes:
        texts: the completions.
        true_boxes: for each completion its true boxes, xyxy in original pixels; one box for a
            referring expression, any number elsewhere.
        coordinate_space: the space of the boxes in the completions, see rec/boxes.py.
        image_sizes, input_sizes: n times (height, width) before and after the processor's resize.
        true_labels: for each completion the labels of its true boxes, or None where they have none:
            a referring expression names one kind of thing. None: of all completions.
    """

    texts: Sequence[str]
    true_boxes: Sequence[Sequence[Sequence[float]]]
    coordinate_space: str
    image_sizes: Sequence[Size]
    input_sizes: Sequence[Size]
    true_labels: Sequence[Sequence[str] | None] | None = None

    @cached_property
    def answered(self) -> np.ndarray:
        """First box of each answer, (n, 4) xyxy in original pixels; NaN where none can be read."""
        answers = [parse_answer(text, self.coordinate_space) for text in self.texts]
        unread = (np.nan,) * 4
        read = [answer.box if isinstance(answer, Parsed) else unread for answer in answers]
        sizes = np.reshape(self.image_sizes, (-1, 2)), np.reshape(self.input_sizes, (-1, 2))
        return boxes.to_original(np.reshape(read, (-1, 4)), self.coordinate_space, *sizes)

    @cached_property
    def true_box(self) -> np.ndarray:
        """The true box of each, (n, 4) xyxy in original pixels; NaN where there is not just one."""
        unclear = (np.nan,) * 4
        single = [true[0] if len(true) == 1 else unclear for true in self.true_boxes]
        return np.reshape(np.asarray(single, dtype=np.float64), (-1, 4))

    @cached_property
    def ious(self) -> np.ndarray:
        """IoU (n,) of the answered box with the true box; 0 where one of them is missing."""
        return boxes.iou(self.answered, self.true_box)

    @cached_property
    def judgeable(self) -> np.ndarray:
        """(n,) True where there is exactly one true box, and it has an area."""
        return np.asarray(np.nan_to_num(boxes.area(self.true_box)) > 0)

    @property
    def parse_rate(self) -> float:
        """Share of completions with a box that can be read."""
        return float(np.mean(~np.isnan(self.answered[:, 0])))

    def labels(self, row: int) -> Sequence[str] | None:
        """The labels of one completion's true boxes; None where they have none."""
        return None if self.true_labels is None else self.true_labels[row]

    def all_answered(self, row: int) -> tuple[np.ndarray, list[str]]:
        """All boxes of one answer, (k, 4) xyxy in original pixels, and their k labels, in order."""
        read = parse_labeled_boxes(self.texts[row])
        as_written = np.reshape([box for box, _ in read], (-1, 4))
        sizes = np.asarray(self.image_sizes[row]), np.asarray(self.input_sizes[row])
        in_original = boxes.to_original(as_written, self.coordinate_space, *sizes)
        return in_original, [label for _, label in read]

    def where_judgeable(self, values: np.ndarray) -> list[float | None]:
        """`values` (n,) as rewards: None where not `judgeable`."""
        pairs = zip(values.tolist(), self.judgeable, strict=True)
        return [value if judgeable else None for value, judgeable in pairs]
