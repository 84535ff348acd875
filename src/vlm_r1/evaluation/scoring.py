"""One scorer for every method and every log: rows -> IoU, hits, parse reasons, images.

There are two ways to read a row. Its raw completion is read by a preset, `standard` unless another
is asked for; our own files, those with `meta`, are always read so. `logged` takes the box that the
file itself extracted; logs of others are read so unless a preset is asked for, because their
extraction is part of what they measured. The accuracy that a file states is compared with, never
believed.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from vlm_r1.errors import ResultError
from vlm_r1.evaluation.diagnosis import OtherReading, extraction_in_words, why_not_stated
from vlm_r1.evaluation.scores import Scores
from vlm_r1.rec.boxes import COORDINATE_SPACES, iou, is_hit, to_original
from vlm_r1.rec.parsing import Parsed, Unparsed
from vlm_r1.rec.results import ResultFile, ResultRow
from vlm_r1.rec.vlm_r1_parsers import PRESETS, REPAIRING, STANDARD, Preset

LOGGED = "logged"  # the reading that takes a file's own boxes
BROKEN_EXTRACTION = 5.0  # percent points that logged boxes may score below their completions
NO_BOX_LOGGED = (0.0, 0.0, 0.0, 0.0)  # how VLM-R1 logs a completion without a box


def score_results(
    result: ResultFile, preset: Preset | None = None, coordinate_space: str | None = None
) -> Scores:
    """Score every row.

    Logged boxes that score more than 5 points below the re-parsed ones come from a broken
    extraction; the re-parsed ones are used then, and `note` says so with both figures.

    Args:
        preset: reads the completions and measures the boxes; None takes a file's own boxes where
            it has any and is not ours, else `standard`.
        coordinate space: the coordinate space of the answers; None takes the one in the contract,
            else `original`. With a coordinate space, completions are read rather than logged boxes,
            wherever there are any.

    Raises:
        ResultError: the file has no rows or fewer than it says, a true box has no area, or a row
            lacks the sizes that the coordinate space needs.
    """
    _require_rows(result)
    assumed = _space(result, coordinate_space)
    if preset is None and result.meta is None and any(map(_has_logged_box, result.results)):
        silent = not any(row.model_output.strip() for row in result.results)
        if coordinate_space is None or silent:
            return _score_log(result, assumed, silent)
    return _noted(_parsed(result, preset or STANDARD, assumed), result)


def _score_log(result: ResultFile, coordinate_space: str, silent: bool) -> Scores:
    """The boxes a log extracted, unless its completions show that the extraction is broken."""
    logged = _logged(result, coordinate_space)
    if silent:
        return _noted(logged, result)
    parsed = _parsed(result, STANDARD, coordinate_space)
    if logged.accuracy >= parsed.accuracy - BROKEN_EXTRACTION:
        return _noted(logged, result)
    boxes = extraction_in_words(parsed.boxes, logged.boxes, parsed.truth)
    how = f" (it took {boxes})" if boxes else ""
    stated = "nothing" if result.accuracy is None else f"{result.accuracy:.1f} %"
    note = (
        f"the file states {stated}, and the boxes it extracted score {logged.accuracy:.1f} %, but "
        f"its completions score {parsed.accuracy:.1f} %: its extraction is broken{how}, so the "
        "completions are scored instead"
    )
    return replace(parsed, note=note)


def _parsed(result: ResultFile, preset: Preset, coordinate_space: str) -> Scores:
    def read(row: ResultRow) -> Parsed | Unparsed:
        answer = preset.read(row.model_output, coordinate_space)
        if isinstance(answer, Parsed) and not _has_sizes(row, answer.coordinate_space):
            return Unparsed(
                "no_image_size"
            )  # a preset may find another coordinate space than was assumed
        return answer

    return _scores(result, read, coordinate_space, preset.name, preset.overlap)


def _logged(result: ResultFile, coordinate_space: str) -> Scores:
    def read(row: ResultRow) -> Parsed | Unparsed:
        if not _has_logged_box(row):
            return Unparsed("logged_without_box")
        return Parsed(row.extracted_answer, coordinate_space, where="text", boxes=1)

    return _scores(result, read, coordinate_space, LOGGED, iou)


def _scores(
    result: ResultFile,
    read: Callable[[ResultRow], Parsed | Unparsed],
    coordinate_space: str,
    reading: str,
    overlap_of: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Scores:
    rows = result.results
    answers = [read(row) for row in rows]
    found = [answer for answer in answers if isinstance(answer, Parsed)]
    unread = Counter(answer.reason for answer in answers if isinstance(answer, Unparsed))
    image_size = _sizes([row.image_size for row in rows])
    input_size = _sizes([row.input_size for row in rows])
    truth = np.array([row.ground_truth for row in rows])
    boxes = _in_original(answers, image_size, input_size)
    overlap = overlap_of(boxes, truth)
    return Scores(
        keys=[(row.question, row.ground_truth, row.image) for row in rows],
        images=np.array([_image(row) for row in rows]),
        truth=truth,
        boxes=boxes,
        overlap=overlap,
        hit=is_hit(overlap),
        image_size=image_size,
        input_size=input_size,
        coordinate_space=coordinate_space,
        unparsed=dict(sorted(unread.items())),
        several=sum(answer.boxes > 1 for answer in found),
        repaired=sum(answer.repaired for answer in found),
        stated_accuracy=result.accuracy,
        reading=reading,
    )


def _in_original(
    answers: list[Parsed | Unparsed], image_size: np.ndarray, input_size: np.ndarray
) -> np.ndarray:
    """The answers' boxes (n, 4) in original pixels, NaN where there is none."""
    boxes = np.full((len(answers), 4), np.nan)
    for coordinate_space in COORDINATE_SPACES:
        rows = [
            i
            for i, a in enumerate(answers)
            if isinstance(a, Parsed) and a.coordinate_space == coordinate_space
        ]
        if rows:
            written = np.array([answers[i].box for i in rows])
            boxes[rows] = to_original(written, coordinate_space, image_size[rows], input_size[rows])
    return boxes


def _noted(scores: Scores, result: ResultFile) -> Scores:
    """`scores` with what a reader must know: that nothing was read, or why a statement fails."""
    notes = []
    if scores.parse_rate == 0:
        notes.append(
            f"no box could be read from any of the {scores.n} answers, so the accuracy of 0 tells "
            "how they are written, not where they point; another preset may read them"
        )
    if not scores.statement_holds:
        coordinate_spaces = [
            f for f in COORDINATE_SPACES if all(_has_sizes(row, f) for row in result.results)
        ]
        untried = [f for f in COORDINATE_SPACES if f not in coordinate_spaces]
        trials = _other_readings(result, scores, coordinate_spaces)
        stated, found = scores.stated_accuracy, scores.accuracy
        notes.append(why_not_stated(stated, found, trials, untried))
    return replace(scores, note="; ".join(notes)) if notes else scores


def _other_readings(
    result: ResultFile, scores: Scores, coordinate_spaces: list[str]
) -> Iterator[OtherReading]:
    """Every other way to score the rows that reads any, those in the assumed coordinate space first."""
    for coordinate_space in sorted(
        coordinate_spaces, key=lambda name: name != scores.coordinate_space
    ):
        cause = "parser" if coordinate_space == scores.coordinate_space else "coordinate space"
        for preset in (*PRESETS.values(), REPAIRING):
            tried = _parsed(result, preset, coordinate_space)
            if tried.parse_rate > 0:
                yield OtherReading(f"preset {preset.name}", coordinate_space, tried.accuracy, cause)
    if any(map(_has_logged_box, result.results)):
        logged = _logged(result, "original")
        boxes = extraction_in_words(scores.boxes, logged.boxes, scores.truth)
        reading = "the log's own boxes" + (f" ({boxes})" if boxes else "")
        yield OtherReading(reading, "original", logged.accuracy, "extraction")


def _space(result: ResultFile, coordinate_space: str | None) -> str:
    """The coordinate space asked for, else the contract's; logs without `meta` are in original pixels."""
    if coordinate_space is None and result.meta is not None:
        coordinate_space = result.meta.get("contract", {}).get("coordinate_space")
        if coordinate_space is None:
            raise _unusable("meta without contract.coordinate space", "evaluate again")
    coordinate_space = coordinate_space or "original"
    if coordinate_space not in COORDINATE_SPACES:
        raise _unusable(
            f"coordinate space {coordinate_space!r}", f"name one of {', '.join(COORDINATE_SPACES)}"
        )
    for number, row in enumerate(result.results, start=1):
        if not _has_sizes(row, coordinate_space):
            got = f"row {number}: no image_size or input_size, which coordinate space {coordinate_space} needs"
            raise _unusable(got, "evaluate again, or name the fields that hold them")
    return coordinate_space


def _require_rows(result: ResultFile) -> None:
    rows = result.results
    said = (result.meta or {}).get("records", len(rows))
    if not rows or said != len(rows):
        raise ResultError(
            got=f"a result file with {len(rows)} of {said} rows" if rows else "a file without rows",
            need="at least one row, and all that meta says",
            because="a score from fewer rows is another number",
            do="check how the file was written, or evaluate again",
        )
    for number, row in enumerate(rows, start=1):
        x1, y1, x2, y2 = row.ground_truth
        if x1 >= x2 or y1 >= y2:
            raise ResultError(
                got=f"row {number}: true box {list(row.ground_truth)}",
                need="x1 < x2 and y1 < y2, original pixels",
                because="no answer can hit a box without area",
                do="write true boxes as two corners, not as corner and size",
            )


def _has_sizes(row: ResultRow, coordinate_space: str) -> bool:
    """Whether a box of this row in `coordinate_space` can be brought to original pixels."""
    needed = {"original": (), "input": (row.image_size, row.input_size)}
    return None not in needed.get(coordinate_space, (row.image_size,))


def _has_logged_box(row: ResultRow) -> bool:
    return row.extracted_answer not in (None, NO_BOX_LOGGED)


def _sizes(sizes: list[tuple[int, int] | None]) -> np.ndarray:
    return np.array([(np.nan, np.nan) if size is None else size for size in sizes], dtype=float)


def _image(row: ResultRow) -> str:
    return row.image if row.image is not None else str(row.ground_truth)


def _unusable(got: str, do: str) -> ResultError:
    return ResultError(
        got=got,
        need="rows with boxes whose coordinate space is known",
        because="a box in an unknown coordinate space, or no box at all, has no score",
        do=do,
    )
