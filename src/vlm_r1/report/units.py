"""Units, (method, dataset, step) with their scores, brought into one row order a dataset."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vlm_r1 import paths
from vlm_r1.config import METHODS
from vlm_r1.contract import differences, require_equal
from vlm_r1.errors import ResultError
from vlm_r1.evaluation.correction import Correction, correct_boxes
from vlm_r1.evaluation.frames import FrameFinding, check_frame
from vlm_r1.evaluation.pairing import numbered
from vlm_r1.evaluation.scores import Scores
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.results import ResultFile, ResultRow, read_results

TESTED = ("id", "ood")  # roles that are compared; validation is for choosing a checkpoint only


@dataclass(frozen=True)
class Unit:
    """One (method, checkpoint, dataset) evaluation; `rows` and `scores` in the same order."""

    method: str
    dataset: str
    role: str
    step: int
    source: str  # file
    rows: list[ResultRow]
    scores: Scores
    contract: dict[str, Any]
    records_digest: str | None

    @cached_property
    def correction(self) -> Correction:
        """The boxes with their coordinates corrected, fitted on one half of the pictures each."""
        scores = self.scores
        return correct_boxes(scores.boxes, scores.truth, scores.pictures)

    def frame_finding(self, tests: int) -> FrameFinding:
        """How the boxes score in every frame whose sizes the rows tell; one of `tests` checks."""
        scores = self.scores
        return check_frame(
            scores.written, scores.truth, *scores.sizes, scores.pictures, scores.frame, tests=tests
        )


class Table:
    """The units of a comparison, looked up by method, dataset and step.

    All units of a dataset hold its rows in one order, so that arrays of two units pair row by row.

    Raises:
        ResultError: two units of a dataset hold different rows.
    """

    def __init__(self, units: Iterable[Unit]) -> None:
        self.units = _in_one_order(list(units))
        self._by_key = {(unit.method, unit.dataset, unit.step): unit for unit in self.units}

    def __getitem__(self, key: tuple[str, str, int]) -> Unit:
        return self._by_key[key]

    def __contains__(self, key: tuple[str, str, int]) -> bool:
        return key in self._by_key

    def datasets(self, *roles: str) -> list[str]:
        """Names of the datasets with these roles (all without), by role, then in given order."""
        roles = roles or ("validation", *TESTED)
        return list(
            dict.fromkeys(u.dataset for role in roles for u in self.units if u.role == role)
        )

    def first(self, dataset: str) -> Unit:
        """Any unit of `dataset`; all hold the same rows."""
        return next(unit for unit in self.units if unit.dataset == dataset)

    def steps(self, method: str, dataset: str) -> list[int]:
        """Steps at which `method` was evaluated on `dataset`."""
        return sorted(u.step for u in self.units if (u.method, u.dataset) == (method, dataset))

    def common_steps(self, dataset: str) -> list[int]:
        """Steps at which every method was evaluated on `dataset`."""
        return sorted(set.intersection(*(set(self.steps(m, dataset)) for m in METHODS)))


def read_unit(root: Path, method: str, dataset: str, role: str, step: int) -> Unit:
    """The unit in results/<method>/<dataset>/step-<step>.json.

    Raises:
        ResultError: the file is missing or broken, or its meta names another unit.
    """
    file = paths.result_file(method, dataset, step)
    result = read_results(root / file)
    named = {"method": method, "dataset": dataset, "step": step}
    found = {key: (result.meta or {}).get(key) for key in named}
    if found != named:
        raise ResultError(
            got=f"{file}: meta says {found}",
            need=f"{named}, as the path says",
            because="a renamed file would put its numbers under another name",
            do="`dvc repro` to evaluate again",
        )
    return make_unit(result, source=str(file), role=role, **named)


def make_unit(
    result: ResultFile, *, method: str, dataset: str, role: str, step: int, source: str
) -> Unit:
    """Score a result file.

    Raises:
        ResultError: a row cannot be scored; the message names the file.
    """
    try:
        scores = score_results(result)
    except ResultError as error:
        raise ResultError(f"{source}: {error.got}", error.need, error.because, error.do) from None
    meta = result.meta or {}
    return Unit(
        method=method,
        dataset=dataset,
        role=role,
        step=step,
        source=source,
        rows=result.results,
        scores=scores,
        contract=meta.get("contract", {"verified": False}),
        records_digest=meta.get("records_digest"),
    )


def check_fairness(units: list[Unit], allow_unfair: bool) -> list[str]:
    """The terms in which units differ, "field: one value != another"; empty where all is fair.

    Terms are the contract, and for the units of one dataset the digest of its records.

    Raises:
        ContractError: terms differ and `allow_unfair` is not given.
    """
    groups = [{unit.source: unit.contract for unit in units}]
    for dataset in dict.fromkeys(unit.dataset for unit in units):
        digests = {u.source: {dataset: u.records_digest} for u in units if u.dataset == dataset}
        groups.append(digests)
    found = []
    for group in groups:
        if not allow_unfair:
            require_equal(group)
        first, *others = group.values()
        found += [line for other in others for line in differences(first, other)]
    return list(dict.fromkeys(found))


def _in_one_order(units: list[Unit]) -> list[Unit]:
    reference: dict[str, Unit] = {}
    return [_like(reference.setdefault(unit.dataset, unit), unit) for unit in units]


def _like(reference: Unit, unit: Unit) -> Unit:
    """`unit` in the row order of `reference`; rows with equal keys pair by occurrence."""
    position = {key: i for i, key in enumerate(numbered(unit.scores.keys))}
    wanted = numbered(reference.scores.keys)
    lacking = [key for key in wanted if key not in position]
    if lacking or len(position) != len(wanted):
        raise ResultError(
            got=f"{unit.source}: {len(position)} rows, {len(lacking)} of the {len(wanted)} rows of "
            f"{reference.source} are not among them",
            need="the same questions and true boxes in every file of a dataset",
            because="methods are compared row by row",
            do="evaluate both on the same records",
        )
    order = [position[key] for key in wanted]
    return replace(unit, rows=[unit.rows[i] for i in order], scores=unit.scores.take(order))
