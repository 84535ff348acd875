"""What a reward judges: completions, the true boxes, and the boxes that were answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vlm_r1.rec import boxes
from vlm_r1.rec.parsing import Parsed, parse_answer, parse_boxes

Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True)
class Batch:
    """Completions of any number of prompts, read once for all rewards.

    Attributes:
        texts: the completions, n of them.
        truths: the true boxes of each, any number, xyxy in original pixels; for referring
            expressions one.
        coordinate space: the coordinate space the model speaks in, one of `boxes.FRAMES`.
        image_sizes, input_sizes: n times (height, width) before and after the processor's resize.
    """

    texts: Sequence[str]
    truths: Sequence[Sequence[Sequence[float]]]
    coordinate_space: str
    image_sizes: Sequence[Size]
    input_sizes: Sequence[Size]

    @cached_property
    def answered(self) -> np.ndarray:
        """The first box of each answer, (n, 4) in original pixels; NaN where none can be read."""
        answers = [parse_answer(text, self.coordinate_space) for text in self.texts]
        unread = (np.nan,) * 4
        read = [answer.box if isinstance(answer, Parsed) else unread for answer in answers]
        sizes = np.reshape(self.image_sizes, (-1, 2)), np.reshape(self.input_sizes, (-1, 2))
        return boxes.to_original(np.reshape(read, (-1, 4)), self.coordinate_space, *sizes)

    @cached_property
    def true(self) -> np.ndarray:
        """The one true box of each, (n, 4) in original pixels; NaN where it has none or several."""
        unclear = (np.nan,) * 4
        only = [truth[0] if len(truth) == 1 else unclear for truth in self.truths]
        return np.reshape(np.asarray(only, dtype=np.float64), (-1, 4))

    @cached_property
    def ious(self) -> np.ndarray:
        """IoU (n,) of the answered with the true box; 0 where there is none."""
        return boxes.iou(self.answered, self.true)

    @cached_property
    def judgeable(self) -> np.ndarray:
        """(n,) True where one true box with an area stands to judge by."""
        return np.nan_to_num(boxes.area(self.true)) > 0

    @property
    def parse_rate(self) -> float:
        """Share of completions with a box that can be read."""
        return float(np.mean(~np.isnan(self.answered[:, 0])))

    def all_answered(self, row: int) -> np.ndarray:
        """Every box of one answer, (k, 4) in original pixels, in the order written."""
        read = np.reshape(parse_boxes(self.texts[row]), (-1, 4))
        return boxes.to_original(
            read, self.coordinate_space, self.image_sizes[row], self.input_sizes[row]
        )

    def where_judgeable(self, values: np.ndarray) -> list[float | None]:
        """`values` (n,) as rewards, None where there is nothing to judge by."""
        if self.judgeable.all():
            return values.tolist()
        return [v if ok else None for v, ok in zip(values.tolist(), self.judgeable, strict=True)]
