"""What `vlm-r1 score` prints of a log's scores: a JSON object, or lines of text. Numpy only."""

from typing import Any

from vlm_r1.evaluation.coordinate_correction import coordinate_space_block
from vlm_r1.evaluation.scores import OTHER_THRESHOLDS, Scores
from vlm_r1.stats.intervals import Resampling, interval

ODDITIES = {"several": "several boxes (one taken)", "repaired": "reversed corners repaired"}


def scores_json(scores: Scores, file: str, resampling: Resampling | None = None) -> dict[str, Any]:
    """What `vlm-r1 score --json` prints; the interval is null where there is one image."""
    low = high = None
    if len(set(scores.images)) > 1:
        _, low, high = interval(scores.hit, scores.images, resampling or Resampling())
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
        "coordinate_space": coordinate_space_check(scores, resampling),
        "reading": scores.reading,
        "note": scores.note,
    }


def coordinate_space_check(scores: Scores, resampling: Resampling | None = None) -> dict[str, Any]:
    """The `coordinate_space` block of `vlm-r1 score --json`: `correction.coordinate_space_block` of these boxes."""
    return coordinate_space_block(
        scores.written,
        scores.truth,
        *scores.sizes,
        scores.images,
        scores.coordinate_space,
        resampling,
    )


def score_text(found: dict[str, Any]) -> str:
    """`scores_json` in words: one line for the numbers, one for how they were read."""
    interval = (
        "no interval from one image"
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
        f"  {at}; reading {found['reading']}, coordinate space {found['coordinate_space']['assumed']}; the file states "
        + ("nothing" if stated is None else f"{stated:.2f} %"),
    ]
    lines.append(f"  {_space_text(found['coordinate_space'])}")
    if reasons or odd:
        lines.append("  " + "; ".join([f"no box: {', '.join(reasons)}"] * bool(reasons) + odd))
    return "\n".join(lines + [f"  note: {found['note']}"] * bool(found["note"]))


def _space_text(coordinate_space: dict[str, Any]) -> str:
    """What the coordinate space check found, in words."""
    low, high = coordinate_space["corrected_ci_low"], coordinate_space["corrected_ci_high"]
    span = "" if low is None else f" ({low:.2f} to {high:.2f})"
    corrected = f"coordinates corrected {coordinate_space['corrected_accuracy']:.2f} %{span}"
    if coordinate_space["best"] == coordinate_space["assumed"]:
        return corrected
    return f"{corrected}; boxes score significantly better as `{coordinate_space['best']}`"
