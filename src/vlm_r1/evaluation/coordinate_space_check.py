"""Coordinate space self-check: do the boxes score better when read in another coordinate system?

A model that writes 0-1000 and is read in pixels looks as if it could not ground anything. So every
evaluation is scored under each coordinate space whose sizes are known, and one that is
significantly better than the assumed coordinate space is an error, not a footnote. Numpy and scipy
only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from vlm_r1.errors import ResultError
from vlm_r1.rec.boxes import COORDINATE_SPACES, iou, is_hit, to_original
from vlm_r1.rec.parsing import Parsed, parse_answer
from vlm_r1.rec.results import ResultRow
from vlm_r1.stats.intervals import Difference, Resampling, paired_difference

WORDS = {
    "original": "original pixels",
    "input": "input pixels",
    "thousand": "0-1000",
    "unit": "0-1",
}


@dataclass(frozen=True)
class CoordinateSpaceCheck:
    """How the boxes of one unit score in every coordinate space.

    Attributes:
        assumed: the coordinate space the boxes were taken to be in.
        best: the most accurate of the coordinate spaces that are significantly better, else
            `assumed`.
        accuracy: coordinate space -> percent, of every coordinate space whose sizes are known.
        gain: of `best` over `assumed`, at the confidence that allows for all tests made; None
            where they are the same.
    """

    assumed: str
    best: str
    accuracy: dict[str, float]
    gain: Difference | None

    @property
    def sentence(self) -> str:
        """The scores in words, the assumed coordinate space first, the best next."""
        first = dict.fromkeys([self.assumed, self.best, *self.accuracy])
        return "boxes score " + ", ".join(f"{self.accuracy[f]:.1f} % as {WORDS[f]}" for f in first)


def check_coordinate_space(
    written: np.ndarray,
    truth: np.ndarray,
    image_sizes: np.ndarray | None,
    input_sizes: np.ndarray | None,
    images: np.ndarray,
    assumed: str,
    resampling: Resampling | None = None,
    tests: int = 1,
) -> CoordinateSpaceCheck:
    """Score boxes under every coordinate space that can be computed.

    Another coordinate space is better if its gain is above zero in the paired bootstrap over images
    and in the exact sign test over images (a bootstrap of a few images is too sure of itself), both
    with Bonferroni's correction for the coordinate spaces tried and for `tests`.

    Args:
        written: boxes (n, 4) as the model wrote them, xyxy, coordinate space unknown; NaN where
            unparsed.
        truth: true boxes (n, 4), xyxy, original pixels.
        image_sizes, input_sizes: (n, 2) as (height, width) before and after the resize; None
            leaves out the coordinate spaces that need them.
        images: the cluster of each row (n,).
        assumed: one of `boxes.FRAMES`.
        tests: how many units are checked in one run, so that no run fails by their number.

    Raises:
        ResultError: the assumed coordinate space needs sizes that are not given.
    """
    hits = _hits_by_space(written, truth, image_sizes, input_sizes)
    if assumed not in hits:
        raise ResultError(
            got=f"boxes in {WORDS[assumed]} without the sizes of their images",
            need="image_size and input_size in every row",
            because="boxes are compared with true boxes in original pixels",
            do="evaluate again, or name the coordinate space the boxes are in",
        )
    resampling = resampling or Resampling()
    others = {
        coordinate_space: hit
        for coordinate_space, hit in hits.items()
        if coordinate_space != assumed
    }
    error_rate = (1 - resampling.confidence) / (tests * max(1, len(others)))
    strict = replace(resampling, confidence=1 - error_rate)
    gains = {f: _gain(hit, hits[assumed], images, strict) for f, hit in others.items()}
    better = [coordinate_space for coordinate_space, gain in gains.items() if gain is not None]
    best = max(better, key=lambda coordinate_space: gains[coordinate_space].mean, default=assumed)
    accuracy = {coordinate_space: 100 * float(hit.mean()) for coordinate_space, hit in hits.items()}
    return CoordinateSpaceCheck(assumed, best, accuracy, gains.get(best))


def check_rows(rows: Sequence[ResultRow], assumed: str, tests: int = 1) -> CoordinateSpaceCheck:
    """`check_coordinate_space` of result rows with images, from the boxes in their raw completions."""
    answers = [parse_answer(row.model_output) for row in rows]
    written = [a.box if isinstance(a, Parsed) else (np.nan,) * 4 for a in answers]
    return check_coordinate_space(
        np.array(written),
        np.array([row.ground_truth for row in rows]),
        sizes_or_none([row.image_size for row in rows]),
        sizes_or_none([row.input_size for row in rows]),
        np.array([row.image for row in rows]),
        assumed,
        tests=tests,
    )


def require_coordinate_space(finding: CoordinateSpaceCheck, source: str) -> None:
    """Refuse boxes that score significantly better in another coordinate space than the assumed one.

    Raises:
        ResultError: names `source`, both coordinate spaces and their scores.
    """
    if finding.best == finding.assumed:
        return
    low, high = finding.gain.low, finding.gain.high
    raise ResultError(
        got=f"{source}: {finding.sentence} ({finding.gain.mean:+.1f} points, interval {low:+.1f} "
        f"to {high:+.1f})",
        need=f"boxes that score best as {WORDS[finding.assumed]}, the coordinate space they are read in",
        because="boxes in another coordinate space measure coordinates, not grounding",
        do=f"set task.coordinate_space to `{finding.best}` if that is what the model writes, or look for a "
        "resize that training and evaluation do not share",
    )


def sizes_or_none(sizes: Sequence[tuple[int, int] | None]) -> np.ndarray | None:
    """Sizes (n, 2) as (height, width); None where any row does not tell its own."""
    return None if any(size is None for size in sizes) else np.array(sizes, dtype=np.float64)


def in_original(
    written: np.ndarray,
    coordinate_space: str,
    image_sizes: np.ndarray | None,
    input_sizes: np.ndarray | None,
) -> np.ndarray:
    """Boxes (n, 4) written in `coordinate_space`, in original pixels; no sizes are needed for `original`."""
    if coordinate_space == "original":
        return np.asarray(written, dtype=np.float64)
    return to_original(written, coordinate_space, image_sizes, input_sizes)


def _hits_by_space(
    written: np.ndarray,
    truth: np.ndarray,
    image_sizes: np.ndarray | None,
    input_sizes: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Coordinate space -> hits, bool (n,), of the coordinate spaces whose sizes are known."""
    lacking = {"original": False, "input": image_sizes is None or input_sizes is None}
    return {
        coordinate_space: is_hit(
            iou(in_original(written, coordinate_space, image_sizes, input_sizes), truth)
        )
        for coordinate_space in COORDINATE_SPACES
        if not lacking.get(coordinate_space, image_sizes is None)
    }


def _gain(
    hit: np.ndarray, assumed: np.ndarray, images: np.ndarray, strict: Resampling
) -> Difference | None:
    """The gain of `hit` over `assumed` where it is significant at `strict`'s confidence."""
    _, image_of_row = np.unique(images, return_inverse=True)
    change = np.bincount(image_of_row, weights=1.0 * hit - assumed)
    up, down = int((change > 0).sum()), int((change < 0).sum())
    if up <= down or stats.binomtest(up, up + down).pvalue > 1 - strict.confidence:
        return None
    gain = paired_difference(hit, assumed, images, strict)
    return gain if gain.low > 0 else None
