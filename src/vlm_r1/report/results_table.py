"""The table of results that the report is computed from.

An `EvalResult` is one evaluation with its scores. A `SeedGroup` holds the results of one (method,
dataset, step), one per seed. All results of a dataset are brought into one row order, so that
arrays of two groups pair row by row.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vlm_r1 import paths
from vlm_r1.config import METHODS, Method, Params
from vlm_r1.errors import ResultError
from vlm_r1.evaluation.coordinate_correction import Correction, correction_of
from vlm_r1.evaluation.pairing import pair_rows
from vlm_r1.evaluation.row_table import RowTable, share, share_scores
from vlm_r1.evaluation.scores import Scores
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.rec.results import ResultFile, read_results
from vlm_r1.stats.clustered import DEFAULT_CONFIDENCE
from vlm_r1.stats.intervals import Difference, Interval, interval, paired_difference

TESTED = ("id", "ood")  # roles on which methods are compared; validation only selects checkpoints


@dataclass(frozen=True)
class EvalResult:
    """One (method, seed, checkpoint, dataset) evaluation; `rows` and `scores` in the same order.

    `seed` is that of the training run, None if the logs do not give it; `source` is the file.
    """

    method: str
    dataset: str
    role: str
    step: int
    seed: int | None
    source: str
    rows: RowTable
    scores: Scores
    contract: dict[str, Any]
    records_digest: str | None

    @cached_property
    def correction(self) -> Correction:
        """The boxes with their coordinates corrected, two-fold cross-fitted over images."""
        return correction_of(self.scores)


@dataclass(frozen=True)
class SeedGroup:
    """The results of one (method, dataset, step), one per seed; means are over all of them.

    Arrays are (n, ...) for one seed and (seeds, n, ...) for several, as the statistics take them.
    `confidence` is that of the table.
    """

    results: tuple[EvalResult, ...]
    confidence: float = DEFAULT_CONFIDENCE

    @property
    def first(self) -> EvalResult:
        """The result of the first seed, from which single rows are shown."""
        return self.results[0]

    @property
    def method(self) -> str:
        """sft or grpo."""
        return self.first.method

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.first.dataset

    @property
    def role(self) -> str:
        """The dataset's role."""
        return self.first.role

    @property
    def step(self) -> int:
        """The checkpoint's step."""
        return self.first.step

    @property
    def images(self) -> np.ndarray:
        """(n,), the image (cluster) of each row."""
        return self.first.scores.images

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(set(self.images))

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.first.scores.n

    @property
    def hit(self) -> np.ndarray:
        """Bool: True where the IoU is above 0.5."""
        return _stack([result.scores.hit for result in self.results])

    @property
    def overlap(self) -> np.ndarray:
        """IoU in 0-1, shaped as `hit`; 0 where unparsed."""
        return _stack([result.scores.overlap for result in self.results])

    @property
    def accuracy(self) -> float:
        """Percent."""
        return 100 * float(self.hit.mean())

    @property
    def mean_iou(self) -> float:
        """0-1; an unparsed row counts as 0."""
        return float(self.overlap.mean())

    @property
    def parse_rate(self) -> float:
        """Share of answers (0-1) from which a box could be read."""
        return float(np.mean([result.scores.parse_rate for result in self.results]))

    def interval(self) -> Interval:
        """Accuracy with its interval over images and seeds, percent."""
        return interval(self.hit, self.images, self.confidence)

    def corrected_interval(self) -> Interval:
        """As `interval`, with the box coordinates corrected."""
        return interval(self.correction.hit, self.images, self.confidence)

    def minus(self, other: "SeedGroup") -> Difference:
        """Accuracy minus `other`'s on the same rows, percent points, paired by image."""
        return paired_difference(self.hit, other.hit, self.images, self.confidence)

    def corrected_minus(self, other: "SeedGroup") -> Difference:
        """As `minus`, with the box coordinates of both corrected."""
        ours, theirs = self.correction.hit, other.correction.hit
        return paired_difference(ours, theirs, self.images, self.confidence)

    @cached_property
    def correction(self) -> Correction:
        """The corrections of all seeds; its arrays are shaped as `hit`."""
        parts = [result.correction for result in self.results]
        reasons = [part.reason for part in parts]
        return Correction(
            boxes=_stack([part.boxes for part in parts]),
            raw_hit=_stack([part.raw_hit for part in parts]),
            hit=_stack([part.hit for part in parts]),
            halves=tuple(half for part in parts for half in part.halves),
            reason=reasons[0] if None not in reasons else None,
        )


class ResultsTable:
    """The seed groups of a comparison by method, dataset and step, and the confidence of intervals.

    Raises:
        ResultError: two results of a dataset have different rows, or a group lacks a seed.
    """

    def __init__(
        self, results: Iterable[EvalResult], confidence: float = DEFAULT_CONFIDENCE
    ) -> None:
        self.confidence = confidence
        self.results = _in_one_order(list(results))
        self.seeds = list(dict.fromkeys(result.seed for result in self.results))
        grouped: dict[tuple[str, str, int], list[EvalResult]] = {}
        for result in self.results:
            grouped.setdefault((result.method, result.dataset, result.step), []).append(result)
        for group in grouped.values():
            _require_seeds(group, self.seeds)
        self._groups = {key: SeedGroup(tuple(group), confidence) for key, group in grouped.items()}

    def __getitem__(self, key: tuple[str, str, int]) -> SeedGroup:
        return self._groups[key]

    def __contains__(self, key: tuple[str, str, int]) -> bool:
        return key in self._groups

    def datasets(self, *roles: str) -> list[str]:
        """Names of the datasets with these roles (by default all), by role, then in given order."""
        roles = roles or ("validation", *TESTED)
        return list(
            dict.fromkeys(r.dataset for role in roles for r in self.results if r.role == role)
        )

    def first(self, dataset: str) -> EvalResult:
        """The first result of `dataset`; all of them have the same rows."""
        return next(result for result in self.results if result.dataset == dataset)

    def steps(self, method: str, dataset: str) -> list[int]:
        """Steps at which `method` was evaluated on `dataset`."""
        return sorted(step for m, d, step in self._groups if (m, d) == (method, dataset))

    def common_steps(self, dataset: str) -> list[int]:
        """Steps at which every method was evaluated on `dataset`."""
        return sorted(set.intersection(*(set(self.steps(m, dataset)) for m in METHODS)))

    def gain(self, method: str, dataset: str, step: int) -> np.ndarray:
        """Hits at `step` minus hits at step 0, each -1, 0 or 1, shaped as `SeedGroup.hit`."""
        gained: np.ndarray = 1.0 * self[method, dataset, step].hit - self[method, dataset, 0].hit
        return gained

    def trained_steps(self, dataset: str) -> list[int]:
        """The common steps after step 0 if step 0 is common too, else none: no gain is known."""
        steps = self.common_steps(dataset)
        return steps[1:] if steps[:1] == [0] else []


def load_eval_result(
    root: Path, params: Params, method: Method, dataset: str, step: int, seed: int
) -> EvalResult:
    """The result in results/<run>/<dataset>/step-<step>.json.

    Raises:
        ResultError: the file is missing or broken, or its meta does not match its path.
    """
    file = paths.result_file(params.run_name(method, seed), dataset, step)
    result = read_results(root / file)
    named = {"method": method, "dataset": dataset, "step": step}
    found = {key: (result.meta or {}).get(key) for key in named}
    if found != named:
        raise ResultError(
            got=f"{file}: meta says {found}",
            need=f"{named}, as its path says",
            because="the numbers of a renamed file would be reported under a wrong name",
            do="`dvc repro` to evaluate again",
        )
    role = params.datasets[dataset].role
    return make_eval_result(
        result, method=method, dataset=dataset, role=role, step=step, source=str(file), seed=seed
    )


def make_eval_result(
    result: ResultFile,
    *,
    method: str,
    dataset: str,
    role: str,
    step: int,
    source: str,
    seed: int | None = None,
) -> EvalResult:
    """Score a result file.

    Raises:
        ResultError: a row cannot be scored; the message names the file.
    """
    try:
        scores = score_results(result)
    except ResultError as error:
        raise ResultError(f"{source}: {error.got}", error.need, error.because, error.do) from None
    meta = result.meta or {}
    return EvalResult(
        method=method,
        dataset=dataset,
        role=role,
        step=step,
        seed=seed,
        source=source,
        rows=RowTable.of(result.results, scores),
        scores=scores,
        contract=meta.get("contract", {"verified": False}),
        records_digest=meta.get("records_digest"),
    )


def share_columns(results: Iterable[EvalResult]) -> list[EvalResult]:
    """The results, read one by one; what a dataset's files have in common is held once."""
    first: dict[str, EvalResult] = {}
    return [_shared(first.setdefault(result.dataset, result), result) for result in results]


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    """A single array as it is; several stacked, with the seeds as first axis."""
    return arrays[0] if len(arrays) == 1 else np.stack(arrays)


def _require_seeds(group: list[EvalResult], seeds: list[int | None]) -> None:
    found = [result.seed for result in group]
    if sorted(found, key=seeds.index) != seeds:
        result = group[0]
        raise ResultError(
            got=f"{result.method} on {result.dataset} at step {result.step}: seeds {found}",
            need=f"each of {seeds} once",
            because="every point of a curve must be the mean over the same runs",
            do="evaluate every training run at every step, on every dataset",
        )


def _in_one_order(results: list[EvalResult]) -> list[EvalResult]:
    """The results, each in the row order of its dataset's first one."""
    reference: dict[str, EvalResult] = {}
    return [_reordered(reference.setdefault(result.dataset, result), result) for result in results]


def _reordered(reference: EvalResult, result: EvalResult) -> EvalResult:
    """`result` in the row order of `reference`."""
    if result is reference:
        return result
    names = reference.source, result.source
    order = pair_rows(reference.rows.keys(), result.rows.keys(), names).b
    if order == list(range(len(order))):
        return _shared(reference, result)
    ordered = replace(result, rows=result.rows.take(order), scores=result.scores.take(order))
    return _shared(reference, ordered)


def _shared(reference: EvalResult, result: EvalResult) -> EvalResult:
    """`result` without copies of what `reference` holds too."""
    return replace(
        result,
        rows=share(reference.rows, result.rows),
        scores=share_scores(reference.scores, result.scores),
    )
