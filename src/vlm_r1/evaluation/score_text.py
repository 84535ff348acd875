"""What `vlm-r1 score` prints of a log's scores: a JSON object, or lines of text. Numpy only."""

from typing import Any

from vlm_r1.evaluation.coordinate_correction import frame_block
from vlm_r1.evaluation.scores import OTHER_THRESHOLDS, Scores
from vlm_r1.stats.intervals import Resampling, interval

ODDITIES = {"several": "several boxes (one taken)", "repaired": "reversed corners repaired"}


def scores_json(scores: Scores, file: str, resampling: Resampling | None = None) -> dict[str, Any]:
    """What `vlm-r1 score --json` prints; the interval is null where there is one picture."""
    low = high = None
    if len(set(scores.pictures)) > 1:
        _, low, high = interval(scores.hit, scores.pictures, resampling or Resampling())
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
        "frame": frame_check(scores, resampling),
        "reading": scores.reading,
        "note": scores.note,
    }


def frame_check(scores: Scores, resampling: Resampling | None = None) -> dict[str, Any]:
    """The `frame` block of `vlm-r1 score --json`: `correction.frame_block` of these boxes."""
    return frame_block(
        scores.written, scores.truth, *scores.sizes, scores.pictures, scores.frame, resampling
    )


def score_text(found: dict[str, Any]) -> str:
    """`scores_json` in words: one line for the numbers, one for how they were read."""
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
