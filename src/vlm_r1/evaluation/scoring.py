"""The one scorer for every method and every log: rows -> IoU, hits, parse failures, images.

A row can be read in two ways. A preset reads its raw completion: `standard` unless another is asked
for. Our own files, those with `meta`, are always read this way. The reading `logged` takes the box
that the file itself extracted; logs of others are read this way unless a preset is asked for,
because their extraction is part of what they measured. The accuracy stated in a file is checked,
never used.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from vlm_r1.errors import ResultError
from vlm_r1.evaluation.box_formats import STANDARD_XYWH
from vlm_r1.evaluation.detection import NOTHING, read_hull, with_detections
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
    result: ResultFile,
    preset: Preset | None = None,
    coordinate_space: str | None = None,
    in_xywh: bool = False,
) -> Scores:
    """Score every row.

    If logged boxes score more than 5 points below the boxes parsed from the completions, the log's
    extraction is broken: the parsed boxes are scored, and `note` gives both figures.

    Args:
        preset: reads the completions and measures the boxes. None means the file's own boxes if it
            has any and is not ours, else `standard`.
        coordinate_space: that of the answers. None means the one that the file states, else
            `original`.
            If it is given, completions are read rather than logged boxes, if there are any.
        in_xywh: completions are x, y, width, height; read as `standard` in any case.

    Raises:
        ResultError: the file has no rows or fewer than it states, a true box has no area, or a row
            lacks the sizes that the coordinate space needs.
    """
    _require_rows(result)
    assumed = _assumed_space(result, coordinate_space)
    standard = STANDARD_XYWH if in_xywh else STANDARD
    is_foreign = result.meta is None and result.coordinate_space is None
    if preset is None and is_foreign and any(map(_has_logged_box, result.results)):
        without_text = not any(row.model_output.strip() for row in result.results)
        if without_text:
            return _with_note(_score_logged(result, assumed), result)
        if coordinate_space is None:
            return _score_log(result, assumed, standard)
    chosen = standard if preset in (None, STANDARD) else preset
    return _with_note(_score_parsed(result, chosen, assumed), result)


def _score_log(result: ResultFile, coordinate_space: str, standard: Preset) -> Scores:
    """The boxes a log extracted, unless its completions show that the extraction is broken."""
    logged = _score_logged(result, coordinate_space)
    parsed = _score_parsed(result, standard, coordinate_space)
    if logged.accuracy >= parsed.accuracy - BROKEN_EXTRACTION:
        return _with_note(logged, result)
    boxes = extraction_in_words(parsed.boxes, logged.boxes, parsed.true_boxes)
    how = f" (it took {boxes})" if boxes else ""
    stated = "nothing" if result.accuracy is None else f"{result.accuracy:.1f} %"
    note = (
        f"the file states {stated}, and the boxes it extracted score {logged.accuracy:.1f} %, but "
        f"its completions score {parsed.accuracy:.1f} %: its extraction is broken{how}, so the "
        "completions are scored instead"
    )
    return replace(parsed, note=note)


def _score_parsed(result: ResultFile, preset: Preset, coordinate_space: str) -> Scores:
    """Scores of the boxes that `preset` reads in the completions."""

    def read(row: ResultRow) -> Parsed | Unparsed:
        if result.meta is None and not row.model_output.strip() and _has_logged_box(row):
            return _logged_box(row, coordinate_space)  # of a tool that writes it in place of text
        if row.true_objects is not None:
            return read_hull(row, coordinate_space)
        answer = preset.read(row.model_output, coordinate_space)
        # A preset may detect a coordinate space other than the assumed one.
        if isinstance(answer, Parsed) and not _has_sizes(row, answer.coordinate_space):
            return Unparsed("no_image_size")
        return answer

    answers = [read(row) for row in result.results]
    return _score_answers(result, answers, coordinate_space, preset.name, preset.overlap)


def _score_logged(result: ResultFile, coordinate_space: str) -> Scores:
    """Scores of the boxes that the log extracted."""

    answers = [_logged_box(row, coordinate_space) for row in result.results]
    return _score_answers(result, answers, coordinate_space, LOGGED, iou)


def _logged_box(row: ResultRow, coordinate_space: str) -> Parsed | Unparsed:
    if row.extracted_answer is None or not _has_logged_box(row):
        return Unparsed("logged_without_box")
    return Parsed(row.extracted_answer, coordinate_space, where="text", boxes=1)


def _score_answers(
    result: ResultFile,
    answers: list[Parsed | Unparsed],
    coordinate_space: str,
    reading: str,
    overlap_of: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Scores:
    """Scores of one answer per row; `overlap_of` gives the IoU (n,) of two arrays (n, 4)."""
    rows = result.results
    parsed = [answer for answer in answers if isinstance(answer, Parsed)]
    unparsed = Counter(
        answer.reason for answer in answers if isinstance(answer, Unparsed) and answer != NOTHING
    )
    image_size = _sizes([row.image_size for row in rows])
    input_size = _sizes([row.input_size for row in rows])
    true_boxes = np.array([row.ground_truth for row in rows])
    boxes = _in_original(answers, image_size, input_size)
    overlap = overlap_of(boxes, true_boxes)
    objects = None
    if any(row.true_objects is not None for row in rows):
        overlap, objects = with_detections(rows, overlap, boxes, coordinate_space)
    return Scores(
        images=np.array([_image(row) for row in rows]),
        true_boxes=true_boxes,
        boxes=boxes,
        overlap=overlap,
        hit=is_hit(overlap),
        image_size=image_size,
        input_size=input_size,
        coordinate_space=coordinate_space,
        unparsed=dict(sorted(unparsed.items())),
        several=sum(answer.boxes > 1 for answer in parsed),
        repaired=sum(answer.repaired for answer in parsed),
        stated_accuracy=result.accuracy,
        reading=reading,
        objects=objects,
    )


def _in_original(
    answers: list[Parsed | Unparsed], image_size: np.ndarray, input_size: np.ndarray
) -> np.ndarray:
    """The answers' boxes (n, 4) in original pixels; NaN where unparsed."""
    boxes = np.full((len(answers), 4), np.nan)
    for space in COORDINATE_SPACES:
        written = {
            i: answer.box
            for i, answer in enumerate(answers)
            if isinstance(answer, Parsed) and answer.coordinate_space == space
        }
        if written:
            rows = list(written)
            as_written = np.array(list(written.values()))
            boxes[rows] = to_original(as_written, space, image_size[rows], input_size[rows])
    return boxes


def _with_note(scores: Scores, result: ResultFile) -> Scores:
    """`scores`, with a note if no box was read or the stated accuracy is not that of the rows."""
    notes = []
    if scores.parse_rate == 0:
        notes.append(
            f"no box could be read from any of the {scores.n} answers, so the accuracy of 0 tells "
            "how they are written, not where they point; another preset may read them"
        )
    if scores.stated_accuracy is not None and scores.states_other_accuracy():
        usable = [s for s in COORDINATE_SPACES if all(_has_sizes(r, s) for r in result.results)]
        untried = [space for space in COORDINATE_SPACES if space not in usable]
        others = _other_readings(result, scores, usable)
        notes.append(why_not_stated(scores.stated_accuracy, scores.accuracy, others, untried))
    return replace(scores, note="; ".join(notes)) if notes else scores


def _other_readings(
    result: ResultFile, scores: Scores, coordinate_spaces: list[str]
) -> Iterator[OtherReading]:
    """Every other reading that finds boxes, those in the assumed coordinate space first."""
    for space in sorted(coordinate_spaces, key=lambda name: name != scores.coordinate_space):
        cause = "parser" if space == scores.coordinate_space else "coordinate space"
        for preset in (*PRESETS.values(), REPAIRING, STANDARD_XYWH):
            other = _score_parsed(result, preset, space)
            if other.parse_rate > 0:
                yield OtherReading(f"preset {preset.name}", space, other.accuracy, cause)
    if any(map(_has_logged_box, result.results)):
        logged = _score_logged(result, "original")
        boxes = extraction_in_words(scores.boxes, logged.boxes, scores.true_boxes)
        reading = "the log's own boxes" + (f" ({boxes})" if boxes else "")
        yield OtherReading(reading, "original", logged.accuracy, "extraction")


def _assumed_space(result: ResultFile, asked: str | None) -> str:
    """The coordinate space asked for, else the one that the file states, else `original`."""
    space = asked
    if space is None and result.meta is not None:
        space = result.meta.get("contract", {}).get("coordinate_space")
        if space is None:
            raise _unknown_space("meta without contract.coordinate_space", "evaluate again")
    space = space or result.coordinate_space or "original"
    if space not in COORDINATE_SPACES:
        do = f"name one of {', '.join(COORDINATE_SPACES)}"
        raise _unknown_space(f"coordinate space {space!r}", do)
    for number, row in enumerate(result.results, start=1):
        if not _has_sizes(row, space):
            raise _unknown_space(
                f"row {number}: no image_size or input_size, which coordinate space {space} needs",
                "evaluate again, or name the fields that hold them",
            )
    return space


def _require_rows(result: ResultFile) -> None:
    """Refuse a file that lacks rows, or has a true box without area."""
    rows = result.results
    stated = (result.meta or {}).get("records", len(rows))
    if not rows or stated != len(rows):
        raise ResultError(
            got=f"a result file with {len(rows)} of {stated} rows"
            if rows
            else "a file without rows",
            need="at least one row, and as many as meta states",
            because="an accuracy over part of the rows is not that of the dataset",
            do="check how the file was written, or evaluate again",
        )
    for number, row in enumerate(rows, start=1):
        x1, y1, x2, y2 = row.ground_truth
        if x1 >= x2 or y1 >= y2:
            raise ResultError(
                got=f"row {number}: true box {list(row.ground_truth)}",
                need="x1 < x2 and y1 < y2, original pixels",
                because="no answer can hit a box without area",
                do="--box-format xywh reads corner and size, as COCO writes boxes",
            )


def _has_sizes(row: ResultRow, coordinate_space: str) -> bool:
    """Whether a box of this row in `coordinate_space` can be converted to original pixels."""
    if coordinate_space == "original":
        return True
    if coordinate_space == "input" and row.input_size is None:
        return False
    return row.image_size is not None


def _has_logged_box(row: ResultRow) -> bool:
    return row.extracted_answer not in (None, NO_BOX_LOGGED)


def _sizes(sizes: Sequence[tuple[int, int] | None]) -> np.ndarray:
    """Sizes (n, 2); NaN where missing."""
    return np.array([(np.nan, np.nan) if size is None else size for size in sizes], dtype=float)


def _image(row: ResultRow) -> str:
    """The row's cluster: its image, or its true box if the log names no image."""
    return row.image if row.image is not None else str(row.ground_truth)


def _unknown_space(got: str, do: str) -> ResultError:
    return ResultError(
        got=got,
        need="rows with boxes whose coordinate space is known",
        because="a box in an unknown coordinate space cannot be compared with the true box",
        do=do,
    )
