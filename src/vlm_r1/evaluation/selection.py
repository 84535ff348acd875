"""Which checkpoints to stand behind: the best of each method on validation records alone.

A test or out-of-domain file is never opened here: a checkpoint chosen by looking at them would
make their scores a promise about themselves. What such a choice would have promised is computed
from hits that someone else read (`leaking_choice`); it chooses nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from vlm_r1 import paths
from vlm_r1.config import METHODS, Method, Params
from vlm_r1.errors import ResultError
from vlm_r1.evaluation.scoring import Scores, score_results
from vlm_r1.rec.contract import TrainingContract, require_equal
from vlm_r1.rec.results import read_results


class Choice(BaseModel):
    """One method's best checkpoint and its scores over all validation records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method
    step: int
    checkpoint: str  # folder, relative to the root
    digest: str
    accuracy: float  # percent
    mean_iou: float  # 0-1


class Selection(BaseModel):
    """The better method's choice is the champion, the other's the challenger."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    datasets: list[str]
    contract: str  # digest of the training contract
    champion: Choice
    challenger: Choice


class ValidationScore(NamedTuple):
    """A checkpoint on all validation records: percent, and mean IoU (0-1)."""

    accuracy: float
    mean_iou: float


class LeakingChoice(NamedTuple):
    """Accuracies (percent) on one test set, of the honest choice and of the one that peeked."""

    chosen_step: int  # best on validation
    accuracy: float
    best_step: int  # best on this very test set
    best_accuracy: float

    @property
    def overclaim(self) -> float:
        """Percent points that choosing on the test set would have claimed on top."""
        return self.best_accuracy - self.accuracy


def select(params: Params, root: Path) -> Selection:
    """Choose by accuracy on the validation datasets; ties by mean IoU, then the earliest step.

    The base (step 0) is no candidate.

    Raises:
        ResultError: a validation result is missing or broken.
        ContractError: two of the results were made under different contracts.
    """
    contracts: dict[str, dict] = {}
    choices = []
    for method in METHODS:
        steps = params.train.step_grid[1:]
        candidates = {s: _candidate(params, root, method, s, contracts) for s in steps}
        choices.append(candidates[best_step({s: _score(c) for s, c in candidates.items()})])
    require_equal(contracts)
    champion, challenger = sorted(choices, key=lambda choice: _rank(choice.step, _score(choice)))
    terms = next(iter(contracts.values()))
    training = TrainingContract(**{name: terms[name] for name in TrainingContract.model_fields})
    return Selection(
        datasets=params.names("validation"),
        contract=training.digest,
        champion=champion,
        challenger=challenger,
    )


def pooled_score(scores: list[Scores]) -> ValidationScore:
    """One checkpoint's score over all rows of all validation datasets."""
    return ValidationScore(
        accuracy=100 * float(np.concatenate([score.hit for score in scores]).mean()),
        mean_iou=float(np.concatenate([score.overlap for score in scores]).mean()),
    )


def best_step(scores: Mapping[int, ValidationScore]) -> int:
    """The step with the best accuracy; ties by mean IoU, then the earliest."""
    return min(scores, key=lambda step: _rank(step, scores[step]))


def leaking_choice(
    validation: Mapping[int, ValidationScore], test_hits: Mapping[int, np.ndarray]
) -> LeakingChoice:
    """What choosing a checkpoint on the test set would have claimed, for one method.

    Source of the fault: Cawley and Talbot (2010), "On over-fitting in model selection and
    subsequent selection bias in performance evaluation", JMLR 11.

    Args:
        validation: score of every candidate step; step 0, the base, is no candidate.
        test_hits: hits (n,) on one test set at the same steps.

    Raises:
        ResultError: no candidate, other steps in one than in the other, or a test set that is empty
            or has a NaN.

    Example: validation best at step 20, test 50 % there and 60 % at step 40 -> overclaim 10 points
    """
    if not validation or validation.keys() != test_hits.keys():
        raise ResultError(
            got=f"steps {sorted(validation)} on validation, {sorted(test_hits)} on the test set",
            need="the same steps on both, at least one",
            because="both ways of choosing must have the same checkpoints to choose from",
            do="evaluate every checkpoint on every dataset",
        )
    for step, hits in test_hits.items():
        if np.size(hits) == 0 or not np.isfinite(hits).all():
            raise ResultError(
                got=f"step {step}: no hits, or one that is no number",
                need="a hit or a miss for every row",
                because="an accuracy of less than all rows is another accuracy",
                do="evaluate the checkpoint again",
            )
    accuracies = {step: 100 * float(np.mean(hits)) for step, hits in test_hits.items()}
    chosen = best_step(validation)
    best = min(accuracies, key=lambda step: (-accuracies[step], step))
    return LeakingChoice(chosen, accuracies[chosen], best, accuracies[best])


def _candidate(
    params: Params, root: Path, method: str, step: int, contracts: dict[str, dict]
) -> Choice:
    """One checkpoint's scores, all validation datasets pooled; notes each file's contract."""
    files = [paths.result_file(method, name, step) for name in params.names("validation")]
    results = [read_results(root / file) for file in files]
    for file, result in zip(files, results, strict=True):
        contracts[str(file)] = result.meta["contract"]
    scores = pooled_score([score_results(result) for result in results])
    return Choice(
        method=method,
        step=step,
        checkpoint=paths.checkpoint_dir(method, step).as_posix(),
        digest=results[0].meta["checkpoint_digest"],
        **scores._asdict(),
    )


def _score(choice: Choice) -> ValidationScore:
    return ValidationScore(choice.accuracy, choice.mean_iou)


def _rank(step: int, score: ValidationScore) -> tuple[float, float, int]:
    """Sorts the best first; of equals, `sorted` and `min` keep the order they were given in."""
    return -score.accuracy, -score.mean_iou, step
