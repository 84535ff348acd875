"""Compares two logs of the same records row by row: B - A, and the rows only one got right."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm_r1.evaluation.pairing import Pairing, keys_of, pair_rows
from vlm_r1.evaluation.prediction_logs import PredictionLog
from vlm_r1.evaluation.scores import Scores
from vlm_r1.rec.contract import differences, require_equal
from vlm_r1.rec.prompts import expression_in
from vlm_r1.stats.clustered import DEFAULT_CONFIDENCE
from vlm_r1.stats.intervals import (
    McNemarResult,
    mcnemar_test,
    paired_difference,
)

FLIPS_SHOWN = 10


@dataclass(frozen=True)
class Flip:
    """A row that only one log got right; boxes xyxy in original pixels, None if unparsed."""

    question: str
    true_box: list[float]
    box_a: list[float] | None
    box_b: list[float] | None
    right: str  # a or b


@dataclass(frozen=True)
class LogComparison:
    """How two logs differ.

    Attributes:
        images: number of images; rows on one image count as one unit of sampling.
        difference: B - A, percent points.
        low, high: ends of its 95 % interval; None if there is only one image.
        p_value: two-sided p of no difference, over images; None if there is only one.
        accuracy_a, accuracy_b: percent, over the paired rows.
        flips: first the rows that only B got right, then those that only A did, in A's order.
        unfair: terms in which the contracts differ.
        notes: what a reader should know about the files and their pairing.
    """

    pairing: Pairing
    images: int
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    accuracy_a: float
    accuracy_b: float
    mcnemar: McNemarResult
    flips: list[Flip]
    unfair: list[str]
    notes: list[str]

    def to_json_dict(self, flips: int | None = None) -> dict[str, Any]:
        """What `vlm-r1 compare --json` prints.

        `flips` (at most as many as given), `left_out`, `unfair` and `notes` are there only if they
        are not empty.
        """
        left_out = {"a": self.pairing.only_a, "b": self.pairing.only_b}
        always = {
            "n": len(self.pairing.a),
            "images": self.images,
            "difference": self.difference,
            "ci_low": self.low,
            "ci_high": self.high,
            "p_value": self.p_value,
            "mcnemar_p": self.mcnemar.p_value,
            "only_a": self.mcnemar.only_a,
            "only_b": self.mcnemar.only_b,
        }
        if_any = {
            "flips": [vars(flip) for flip in self.flips[:flips]] if flips is not None else [],
            "left_out": left_out if any(left_out.values()) else {},
            "unfair": self.unfair,
            "notes": self.notes,
        }
        return always | {key: value for key, value in if_any.items() if value}


def compare_logs(
    a: PredictionLog,
    b: PredictionLog,
    common: bool = False,
    allow_unfair: bool = False,
    confidence: float = DEFAULT_CONFIDENCE,
) -> LogComparison:
    """Compare two logs of the same records.

    Args:
        common: compare the rows that both logs have, and count those left out.
        allow_unfair: compare two of our files even if their contracts differ, and list the terms.

    Raises:
        ResultError: the rows do not pair (evaluation/pairing.py).
        ContractError: both files are ours and their contracts differ (without `allow_unfair`).
    """
    unfair = _unfair_terms(a, b, allow_unfair)
    keys = keys_of(a.result.results), keys_of(b.result.results)
    pairing = pair_rows(*keys, (a.name, b.name), common)
    of_a, of_b = a.scores.take(pairing.a), b.scores.take(pairing.b)
    names_images = any(row.image is not None for row in a.result.results)
    images = (of_a if names_images else of_b).images
    questions = [keys[0].questions[i] for i in pairing.a]
    low = high = p_value = None
    if len(set(images)) > 1:
        _, low, high, p_value = paired_difference(of_b.hit, of_a.hit, images, confidence)
    return LogComparison(
        pairing=pairing,
        images=len(set(images)),
        difference=100 * float(np.mean(1.0 * of_b.hit - of_a.hit)),
        low=low,
        high=high,
        p_value=p_value,
        accuracy_a=of_a.accuracy,
        accuracy_b=of_b.accuracy,
        mcnemar=mcnemar_test(of_a.hit, of_b.hit),
        flips=[*_flips(of_a, of_b, questions, "b"), *_flips(of_a, of_b, questions, "a")],
        unfair=unfair,
        notes=_notes(a, b),
    )


def comparison_text(found: LogComparison, a: str, b: str, flips: int = FLIPS_SHOWN) -> str:
    """The comparison in words, with up to `flips` rows that only one log got right."""
    interval = (
        "no interval from one image"
        if found.low is None
        else f"95 % interval {found.low:+.2f} to {found.high:+.2f}, p {found.p_value:.2g}"
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
        lines += [f"  {_flip_text(flip)}" for flip in shown]
    return "\n".join(lines)


def _flip_text(flip: Flip) -> str:
    asked = expression_in(flip.question) or repr(flip.question)
    boxes = f"true {flip.true_box}, A {flip.box_a}, B {flip.box_b}"
    return f"only {flip.right.upper()} right: {asked} {boxes}"


def _unfair_terms(a: PredictionLog, b: PredictionLog, allow_unfair: bool) -> list[str]:
    """The terms in which the contracts of two of our files differ; other tools' logs have none."""
    if a.result.meta is None or b.result.meta is None:
        return []
    of_a, of_b = a.result.meta.get("contract", {}), b.result.meta.get("contract", {})
    if not allow_unfair:
        require_equal({"A": of_a, "B": of_b})
    return differences(of_a, of_b)


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


def _flips(a: Scores, b: Scores, questions: list[str], right: str) -> list[Flip]:
    only = b.hit & ~a.hit if right == "b" else a.hit & ~b.hit
    return [
        Flip(
            question=questions[i],
            true_box=_rounded(a.true_boxes[i]),
            box_a=_box(a.boxes[i]),
            box_b=_box(b.boxes[i]),
            right=right,
        )
        for i in np.flatnonzero(only)
    ]


def _box(box: np.ndarray) -> list[float] | None:
    return None if np.isnan(box).any() else _rounded(box)


def _rounded(box: np.ndarray) -> list[float]:
    return [float(side) for side in np.round(box, 2)]
