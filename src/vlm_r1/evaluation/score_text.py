"""What `vlm-r1 score` prints of a log's scores: a JSON object, or lines of text. Numpy only."""

from typing import Any

import numpy as np

from vlm_r1.evaluation.coordinate_correction import correct_boxes, correction_of
from vlm_r1.evaluation.coordinate_space_check import WrittenBoxes, check_coordinate_space
from vlm_r1.evaluation.detection import f1, precision_and_recall
from vlm_r1.evaluation.scores import OTHER_THRESHOLDS, Scores
from vlm_r1.stats.clustered import DEFAULT_CONFIDENCE
from vlm_r1.stats.intervals import interval

ODDITIES = {"several": "several boxes (one taken)", "repaired": "reversed corners repaired"}


def scores_json(
    scores: Scores, file: str, confidence: float = DEFAULT_CONFIDENCE
) -> dict[str, Any]:
    """What `vlm-r1 score --json` prints; the interval is null if all rows are on one image."""
    low, high = interval_ends(scores.hit, scores.images, confidence)
    return {
        "file": file,
        "n": scores.n,
        "accuracy": scores.accuracy,
        "ci_low": low,
        "ci_high": high,
        "accuracy_at": {str(t): scores.accuracy_at(t) for t in OTHER_THRESHOLDS},
        "mean_iou": scores.mean_iou,
        "parse_rate": scores.parse_rate,
        "unparsed": scores.unparsed,
        "several": scores.several,
        "repaired": scores.repaired,
        "stated_accuracy": scores.stated_accuracy,
        **_detection_json(scores),
        "coordinate_space": coordinate_space_json(
            scores.written_boxes, confidence, correction_of(scores).hit
        ),
        "reading": scores.reading,
        "note": scores.note,
    }


def _detection_json(scores: Scores) -> dict[str, float]:
    """Mean F1 of rows, precision and recall over all boxes; empty without detection rows."""
    if scores.objects is None:
        return {}
    matches = scores.objects.matches
    precision, recall = precision_and_recall(matches)
    return {"f1": float(f1(matches).mean()), "precision": precision, "recall": recall}


def coordinate_space_json(
    boxes: WrittenBoxes, confidence: float = DEFAULT_CONFIDENCE, corrected: np.ndarray | None = None
) -> dict[str, Any]:
    """The block `coordinate_space` of `vlm-r1 score --json`.

    Args:
        corrected: hits (n,) with the coordinates corrected; None: found here.

    Returns:
        {assumed, best, corrected_accuracy, corrected_ci_low, corrected_ci_high}: names of
        coordinate spaces, and percent; the interval is None if all rows are on one image.

    Raises:
        ResultError: the assumed coordinate space needs sizes that the rows lack.
    """
    best = check_coordinate_space(boxes, confidence).best
    hit = corrected
    if hit is None:
        hit = correct_boxes(boxes.require_assumed(), boxes.true_boxes, boxes.images).hit
    low, high = interval_ends(hit, boxes.images, confidence)
    return {
        "assumed": boxes.assumed,
        "best": best,
        "corrected_accuracy": 100 * float(hit.mean()),
        "corrected_ci_low": low,
        "corrected_ci_high": high,
    }


def interval_ends(
    hit: np.ndarray, images: np.ndarray, confidence: float
) -> tuple[float, float] | tuple[None, None]:
    """Both ends of the interval of an accuracy, percent; None if all rows are on one image."""
    if len(set(images)) < 2:
        return None, None
    found = interval(hit, images, confidence)
    return found.low, found.high


def score_text(found: dict[str, Any]) -> str:
    """`scores_json` in words: the numbers, how they were read, and anything unusual."""
    interval_words = (
        "no interval from one image"
        if found["ci_low"] is None
        else f"{found['ci_low']:.2f} to {found['ci_high']:.2f}"
    )
    at = ", ".join(f"{share:.1f} % at {t}" for t, share in found["accuracy_at"].items())
    stated = found["stated_accuracy"]
    stated_words = "nothing" if stated is None else f"{stated:.2f} %"
    reasons = [f"{reason} {count}" for reason, count in found["unparsed"].items()]
    unusual = [f"no box: {', '.join(reasons)}"] if reasons else []
    unusual += [f"{words} {found[key]}" for key, words in ODDITIES.items() if found[key]]
    lines = [
        f"{found['file']}: n {found['n']}, accuracy {found['accuracy']:.2f} % ({interval_words}), "
        f"mean IoU {found['mean_iou']:.3f}, parse rate {100 * found['parse_rate']:.1f} %",
        f"{at}; reading {found['reading']}, coordinate space "
        f"{found['coordinate_space']['assumed']}; the file states {stated_words}",
        _space_text(found["coordinate_space"]),
        *([_detection_text(found)] if "f1" in found else []),
        *(["; ".join(unusual)] if unusual else []),
        *([f"note: {found['note']}"] if found["note"] else []),
    ]
    return "\n  ".join(lines)


def _detection_text(found: dict[str, Any]) -> str:
    return (
        f"several boxes a row: mean F1 {found['f1']:.3f}, precision {found['precision']:.3f}, "
        f"recall {found['recall']:.3f}"
    )


def _space_text(found: dict[str, Any]) -> str:
    """The block `coordinate_space` in words."""
    low, high = found["corrected_ci_low"], found["corrected_ci_high"]
    span = "" if low is None else f" ({low:.2f} to {high:.2f})"
    corrected = f"coordinates corrected {found['corrected_accuracy']:.2f} %{span}"
    if found["best"] == found["assumed"]:
        return corrected
    return f"{corrected}; boxes score significantly better as `{found['best']}`"
