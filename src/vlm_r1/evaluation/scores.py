"""A unit's scores: one entry a row, and what is said of all rows together. Numpy only."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vlm_r1.boxes import from_original
from vlm_r1.evaluation.correction import frame_block
from vlm_r1.evaluation.explain import same_accuracy
from vlm_r1.evaluation.statistics import Resampling, interval

OTHER_THRESHOLDS = (0.3, 0.7, 0.9)  # IoU, beside boxes.IOU_THRESHOLD
ODDITIES = {"several": "several boxes (one taken)", "repaired": "reversed corners repaired"}


@dataclass(frozen=True)
class Scores:
    """Scores of one unit, one entry a row, in the file's order.

    Attributes:
        keys: what pairs a row with the same row of another file (question, true box, image).
        pictures: the cluster of each row: its image, or its true box where logs name no image.
        truth: true xyxy (n, 4), original pixels.
        boxes: predicted xyxy (n, 4), original pixels, NaN where unparsed.
        overlap: IoU (n,) in 0-1, 0 where unparsed.
        hit: bool (n,), IoU above 0.5.
        image_size, input_size: (n, 2) as (height, width) before and after the processor's resize,
            NaN where the file does not tell.
        frame: the frame that the answers are assumed to be written in.
        unparsed: reason -> count.
        several: answers with more than one box; one is taken.
        repaired: answers whose reversed corners were put in order.
        stated_accuracy: percent, as the file says; None where it says nothing.
        reading: "logged", or the name of the preset that read the completions.
        note: what a reader must know about the file; None where all is well.
    """

    keys: list[tuple]
    pictures: np.ndarray
    truth: np.ndarray
    boxes: np.ndarray
    overlap: np.ndarray
    hit: np.ndarray
    image_size: np.ndarray
    input_size: np.ndarray
    frame: str
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
        """Predicted boxes (n, 4) in `frame`, as the answers are assumed to be written."""
        return from_original(self.boxes, self.frame, self.image_size, self.input_size)

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
        arrays = ("pictures", "truth", "boxes", "overlap", "hit", "image_size", "input_size")
        taken = {name: getattr(self, name)[order] for name in arrays}
        return replace(self, keys=[self.keys[i] for i in order], **taken)

    def to_json_dict(self, file: str, resampling: Resampling | None = None) -> dict[str, Any]:
        """What `vlm-r1 score --json` prints; the interval is null where there is one picture."""
        low = high = None
        if len(set(self.pictures)) > 1:
            _, low, high = interval(self.hit, self.pictures, resampling or Resampling())
        return {
            "file": file,
            "n": self.n,
            "accuracy": self.accuracy,
            "ci_low": low,
            "ci_high": high,
            "accuracy_at": {str(t): self.accuracy_at(t) for t in OTHER_THRESHOLDS},
            "mean_iou": self.mean_iou,
            "parse_rate": self.parse_rate,
            "unparsed": self.unparsed,
            "several": self.several,
            "repaired": self.repaired,
            "stated_accuracy": self.stated_accuracy,
            "frame": frame_check(self, resampling),
            "reading": self.reading,
            "note": self.note,
        }


def frame_check(scores: Scores, resampling: Resampling | None = None) -> dict[str, Any]:
    """The `frame` block of `vlm-r1 score --json`: `correction.frame_block` of these boxes."""
    return frame_block(
        scores.written, scores.truth, *scores.sizes, scores.pictures, scores.frame, resampling
    )


def score_text(found: dict[str, Any]) -> str:
    """`Scores.to_json_dict` in words: one line for the numbers, one for how they were read."""
    interval = (
        "no interval from one picture"
        if found["ci_low"] is None
        else f"{found['ci_low']:.2f} to {found['ci_high']:.2f}"
    )
    at = ", ".join(f"{share:.1f} % at {t}" for t, share in found["accuracy_at"].items())
    reasons = [f"{reason} {count}" for reason, count in found["unparsed"].items()]
    odd = [f"{name} {found[key]}" for key, name in ODDITIES.items() if found[key]]
    stated = found["stated_accuracy"]
    lines = [
        f"{found['file']}: n {found['n']}, accuracy {found['accuracy']:.2f} % ({interval}), "
        f"mean IoU {found['mean_iou']:.3f}, parse rate {100 * found['parse_rate']:.1f} %",
        f"  {at}; reading {found['reading']}, frame {found['frame']['assumed']}; the file states "
        + ("nothing" if stated is None else f"{stated:.2f} %"),
    ]
    lines.append(f"  {_frame_text(found['frame'])}")
    if reasons or odd:
        lines.append("  " + "; ".join([f"no box: {', '.join(reasons)}"] * bool(reasons) + odd))
    return "\n".join(lines + [f"  note: {found['note']}"] * bool(found["note"]))


def _frame_text(frame: dict[str, Any]) -> str:
    """What the frame check found, in words."""
    low, high = frame["corrected_ci_low"], frame["corrected_ci_high"]
    span = "" if low is None else f" ({low:.2f} to {high:.2f})"
    corrected = f"coordinates corrected {frame['corrected_accuracy']:.2f} %{span}"
    if frame["best"] == frame["assumed"]:
        return corrected
    return f"{corrected}; boxes score significantly better as `{frame['best']}`"
