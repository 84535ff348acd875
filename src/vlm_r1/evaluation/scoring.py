"""One scorer for every method and every log: rows -> IoU, hits, parse reasons, pictures.

There are two ways to read a row. `parsed` reads its raw completion with the one parser; our own
files, those with `meta`, are always read so. `logged` takes the box that the file itself extracted;
logs of others are read so, because their extraction is part of what they measured. The accuracy
that a file states is compared with, never believed.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vlm_r1.answers import Parsed, Unparsed, box_in_original, parse_answer
from vlm_r1.boxes import iou, is_hit
from vlm_r1.errors import ResultError
from vlm_r1.evaluation.statistics import Resampling, interval
from vlm_r1.results import ResultFile, ResultRow

STATED_TOLERANCE = 0.05  # percent points; files round their accuracy to two digits
BROKEN_EXTRACTION = 5.0  # percent points that logged boxes may score below their completions
NO_BOX_LOGGED = (0.0, 0.0, 0.0, 0.0)  # how VLM-R1 logs a completion without a box


@dataclass(frozen=True)
class Scores:
    """Scores of one unit, one entry a row, in the file's order.

    Attributes:
        keys: what pairs a row with the same row of another file (question, true box, image).
        pictures: the cluster of each row: its image, or its true box where logs name no image.
        overlap: IoU (n,) in 0-1, 0 where unparsed.
        hit: bool (n,), IoU above 0.5.
        boxes: predicted xyxy (n, 4), original pixels, NaN where unparsed.
        unparsed: reason -> count.
        stated_accuracy: percent, as the file says.
        reading: "parsed" or "logged".
        note: what a reader must know about the file; None where all is well.
    """

    keys: list[tuple]
    pictures: np.ndarray
    overlap: np.ndarray
    hit: np.ndarray
    boxes: np.ndarray
    unparsed: dict[str, int]
    stated_accuracy: float
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
        """Whether the file's own accuracy is the one found here."""
        return abs(self.accuracy - self.stated_accuracy) <= STATED_TOLERANCE

    def take(self, order: list[int]) -> "Scores":
        """The same scores with the rows in another order."""
        return replace(
            self,
            keys=[self.keys[i] for i in order],
            pictures=self.pictures[order],
            overlap=self.overlap[order],
            hit=self.hit[order],
            boxes=self.boxes[order],
        )

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
            "mean_iou": self.mean_iou,
            "parse_rate": self.parse_rate,
            "unparsed": self.unparsed,
            "stated_accuracy": self.stated_accuracy,
            "reading": self.reading,
            "note": self.note,
        }


def score_results(result: ResultFile) -> Scores:
    """Score every row: re-parsed where the file has `meta`, else as logged.

    Logged boxes that score more than 5 points below the re-parsed ones come from a broken
    extraction; the re-parsed ones are used then, and `note` says so with both figures.

    Raises:
        ResultError: the file has no rows, or a row lacks the sizes that its frame needs.
    """
    _require_rows(result)
    parsed = _scores(result, [_parsed_answer(row) for row in result.results], "parsed")
    if result.meta is not None:
        return _with_note(parsed)
    logged = _scores(result, [_logged_answer(row) for row in result.results], "logged")
    if logged.accuracy >= parsed.accuracy - BROKEN_EXTRACTION:
        return _with_note(logged)
    note = (
        f"the file states {logged.stated_accuracy:.1f} %, and the boxes it extracted score "
        f"{logged.accuracy:.1f} %, but its completions score {parsed.accuracy:.1f} %: its "
        "extraction is broken, so the completions are scored instead"
    )
    return replace(parsed, note=note)


def _scores(result: ResultFile, answers: list[Parsed | Unparsed], reading: str) -> Scores:
    rows = result.results
    frame = _frame(result)
    boxes = np.array(
        [
            box_in_original(answer, frame, row.image_size, row.input_size)
            for answer, row in zip(answers, rows, strict=True)
        ]
    )
    overlap = iou(boxes, np.array([row.ground_truth for row in rows]))
    return Scores(
        keys=[(row.question, row.ground_truth, row.image) for row in rows],
        pictures=np.array([_picture(row) for row in rows]),
        overlap=overlap,
        hit=is_hit(overlap),
        boxes=boxes,
        unparsed=dict(
            sorted(Counter(a.reason for a in answers if isinstance(a, Unparsed)).items())
        ),
        stated_accuracy=result.accuracy,
        reading=reading,
    )


def _parsed_answer(row: ResultRow) -> Parsed | Unparsed:
    return parse_answer(row.model_output)


def _logged_answer(row: ResultRow) -> Parsed | Unparsed:
    if row.extracted_answer is None or row.extracted_answer == NO_BOX_LOGGED:
        return Unparsed("logged_without_box")
    return Parsed(row.extracted_answer, where="text", boxes=1)


def _frame(result: ResultFile) -> str:
    """The frame the model spoke in; logs without `meta` are in original pixels."""
    if result.meta is None:
        return "original"
    frame = result.meta.get("contract", {}).get("frame")
    if frame is None:
        raise _unusable("meta without contract.frame", "evaluate again")
    if frame != "original":
        for number, row in enumerate(result.results, start=1):
            if row.image_size is None or row.input_size is None:
                raise _unusable(f"row {number}: no image_size or input_size", "evaluate again")
    return frame


def _with_note(scores: Scores) -> Scores:
    if scores.statement_holds:
        return scores
    note = (
        f"the file states {scores.stated_accuracy:.2f} %, its rows score {scores.accuracy:.2f} %; "
        "the latter is used"
    )
    return replace(scores, note=note)


def _require_rows(result: ResultFile) -> None:
    if not result.results:
        raise _unusable("a result file without rows", "check how the file was written")


def _unusable(got: str, do: str) -> ResultError:
    return ResultError(
        got=got,
        need="rows with boxes whose frame is known",
        because="a box in an unknown frame, or no box at all, has no score",
        do=do,
    )


def _picture(row: ResultRow) -> str:
    return row.image if row.image is not None else str(row.ground_truth)
