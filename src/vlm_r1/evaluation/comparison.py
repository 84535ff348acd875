"""Two logs of the same records, row by row: B - A, and the rows on which only one is right."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm_r1.evaluation.pairing import Pairing, pair_rows
from vlm_r1.evaluation.prediction_logs import PredictionLog
from vlm_r1.evaluation.scores import Scores
from vlm_r1.rec.contract import differences, require_equal
from vlm_r1.rec.prompts import expression_in
from vlm_r1.stats.intervals import (
    McNemarResult,
    Resampling,
    mcnemar_test,
    paired_difference,
)

FLIPS_SHOWN = 10


@dataclass(frozen=True)
class Flip:
    """A row on which only one log is right; boxes xyxy in original pixels, None if unparsed."""

    question: str
    truth: list[float]
    box_a: list[float] | None
    box_b: list[float] | None
    right: str  # a or b


@dataclass(frozen=True)
class LogComparison:
    """What two logs differ in. `difference` is B - A in percent points.

    Attributes:
        images: how many; rows on one image are resampled together.
        low, high: 95 % interval; None where there is one image.
        accuracy_a, accuracy_b: percent, over the paired rows.
        flips: those that only B got right first, then those that only A did, in A's order.
        unfair: terms in which the contracts differ.
        notes: what a reader must know about the files and their pairing.
    """

    pairing: Pairing
    images: int
    difference: float
    low: float | None
    high: float | None
    accuracy_a: float
    accuracy_b: float
    mcnemar: McNemarResult
    flips: list[Flip]
    unfair: list[str]
    notes: list[str]

    def to_json_dict(self, flips: int | None = None) -> dict[str, Any]:
        """What `vlm-r1 compare --json` prints; keys beyond the first eight only where they say
        something: `flips` (as many as asked), `left_out`, `unfair`, `notes`.
        """
        left_out = {"a": self.pairing.only_a, "b": self.pairing.only_b}
        found = {
            "n": len(self.pairing.a),
            "images": self.images,
            "difference": self.difference,
            "ci_low": self.low,
            "ci_high": self.high,
            "mcnemar_p": self.mcnemar.p_value,
            "only_a": self.mcnemar.only_a,
            "only_b": self.mcnemar.only_b,
        }
        more = {
            "flips": [vars(flip) for flip in self.flips[:flips]] if flips is not None else [],
            "left_out": left_out if any(left_out.values()) else {},
            "unfair": self.unfair,
            "notes": self.notes,
        }
        return found | {key: value for key, value in more.items() if value}


def compare_logs(
    a: PredictionLog,
    b: PredictionLog,
    common: bool = False,
    allow_unfair: bool = False,
    resampling: Resampling | None = None,
) -> LogComparison:
    """Compare two logs of the same records.

    Args:
        common: compare the rows that both hold, and say how many were left out.
        allow_unfair: go on when the contracts of two of our files differ, and say so.

    Raises:
        ResultError: the rows do not pair (evaluation/pairing.py).
        ContractError: both files are ours, their contracts differ, and that is not allowed.
    """
    unfair = _unfair_terms(a, b, allow_unfair)
    pairing = pair_rows(a.result.results, b.result.results, (a.name, b.name), common)
    of_a, of_b = a.scores.take(pairing.a), b.scores.take(pairing.b)
    names_images = any(row.image is not None for row in a.result.results)
    images = (of_a if names_images else of_b).images
    low = high = None
    if len(set(images)) > 1:
        settings = resampling or Resampling()
        _, low, high, _ = paired_difference(of_b.hit, of_a.hit, images, settings)
    return LogComparison(
        pairing=pairing,
        images=len(set(images)),
        difference=100 * float(np.mean(1.0 * of_b.hit - of_a.hit)),
        low=low,
        high=high,
        accuracy_a=of_a.accuracy,
        accuracy_b=of_b.accuracy,
        mcnemar=mcnemar_test(of_a.hit, of_b.hit),
        flips=[*_flips(of_a, of_b, "b"), *_flips(of_a, of_b, "a")],
        unfair=unfair,
        notes=_notes(a, b),
    )


def comparison_text(found: LogComparison, a: str, b: str, flips: int = FLIPS_SHOWN) -> str:
    """The comparison in words, with up to `flips` rows on which only one log is right."""
    interval = (
        "no interval from one image"
        if found.low is None
        else f"95 % interval {found.low:+.2f} to {found.high:+.2f}"
    )
    lines = [
        f"B - A: {found.difference:+.2f} points ({interval}), {len(found.pairing.a)} rows on "
        f"{found.images} images, paired by {found.pairing.by}",
        f"  A {found.accuracy_a:.2f} %  {a}",
        f"  B {found.accuracy_b:.2f} %  {b}",
        f"  only A right {found.mcnemar.only_a}, only B right {found.mcnemar.only_b}, "
        f"McNemar p {found.mcnemar.p_value:.2g}",
    ]
    if found.pairing.only_a or found.pairing.only_b:
        lines.append(
            f"  left out: {found.pairing.only_a} rows only in A, {found.pairing.only_b} only in B"
        )
    lines += [f"  UNFAIR, the contracts differ: {term}" for term in found.unfair]
    lines += [f"  note: {note}" for note in found.notes]
    if shown := found.flips[:flips]:
        lines.append(f"  flips, {len(shown)} of {len(found.flips)}:")
        lines += [
            f"  only {flip.right.upper()} right: {expression_in(flip.question) or flip.question!r} "
            f"true {flip.truth}, A {flip.box_a}, B {flip.box_b}"
            for flip in shown
        ]
    return "\n".join(lines)


def _unfair_terms(a: PredictionLog, b: PredictionLog, allow_unfair: bool) -> list[str]:
    """The terms in which the contracts of two of our files differ; logs of others have none."""
    if a.result.meta is None or b.result.meta is None:
        return []
    contracts = [log.result.meta.get("contract", {}) for log in (a, b)]
    if not allow_unfair:
        require_equal({"A": contracts[0], "B": contracts[1]})
    return differences(*contracts)


def _notes(a: PredictionLog, b: PredictionLog) -> list[str]:
    notes = [f"{log.name}: {log.scores.note}" for log in (a, b) if log.scores.note]
    if a.scores.reading != b.scores.reading:
        notes.append(
            f"two readings: A by {a.scores.reading}, B by {b.scores.reading}; --preset standard "
            "reads both alike"
        )
    if (a.result.meta is None) != (b.result.meta is None):
        notes.append("only one of the logs has a contract, so equal terms cannot be checked")
    return notes


def _flips(a: Scores, b: Scores, right: str) -> list[Flip]:
    only = b.hit & ~a.hit if right == "b" else a.hit & ~b.hit
    return [
        Flip(a.keys[i][0], _box(a.truth[i]), _box(a.boxes[i]), _box(b.boxes[i]), right)
        for i in np.flatnonzero(only)
    ]


def _box(box: np.ndarray) -> list[float] | None:
    return None if np.isnan(box).any() else np.round(box, 2).tolist()
