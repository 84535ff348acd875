"""Chooses the best checkpoint of each method on the validation records alone.

No test or out-of-domain result is read here, because choosing on them would bias their scores
upward. `leaking_choice` computes how large that bias would have been, from hits it is given; it
does not take part in the choice.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from vlm_r1 import paths
from vlm_r1.config import METHODS, Method, Params
from vlm_r1.errors import ResultError
from vlm_r1.evaluation.scores import Scores
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.rec.contract import TrainingContract, require_equal
from vlm_r1.rec.results import read_results


class ValidationScore(NamedTuple):
    """A checkpoint on all validation records: percent, and mean IoU (0-1)."""

    accuracy: float
    mean_iou: float


class Choice(BaseModel):
    """One method's best checkpoint and its scores on all validation records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method
    step: int
    checkpoint: str  # folder, relative to the root
    digest: str
    accuracy: float  # percent
    mean_iou: float  # 0-1

    @property
    def score(self) -> ValidationScore:
        """What checkpoints are compared by."""
        return ValidationScore(self.accuracy, self.mean_iou)


class Selection(BaseModel):
    """The chosen checkpoint of the better method (champion) and of the other (challenger)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    datasets: list[str]
    contract: str  # digest of the training contract
    champion: Choice
    challenger: Choice


class LeakingChoice(NamedTuple):
    """Accuracies (percent) on one test set: of the step chosen on validation, and of the best."""

    chosen_step: int  # best on validation
    accuracy: float
    best_step: int  # best on this very test set
    best_accuracy: float

    @property
    def overclaim(self) -> float:
        """Percent points by which choosing on the test set would have overstated the accuracy."""
        return self.best_accuracy - self.accuracy


def select(params: Params, root: Path) -> Selection:
    """Choose by accuracy on the validation datasets; ties by mean IoU, then the earliest step.

    The base (step 0) cannot be chosen.

    Raises:
        ResultError: a validation result is missing or broken.
        ContractError: two of the results have different contracts.
    """
    datasets, steps = params.names("validation"), {m: params.step_grid(m)[1:] for m in METHODS}
    contracts: dict[str, dict[str, Any]] = {}  # of every result file
    best = []
    for method in METHODS:
        choices = {}
        for step in steps[method]:
            choices[step], found = _score_checkpoint(root, datasets, method, step)
            contracts |= found
        best.append(choices[best_step({s: choice.score for s, choice in choices.items()})])
    require_equal(contracts)
    champion, challenger = sorted(best, key=lambda choice: _rank(choice.step, choice.score))
    terms = next(iter(contracts.values()))
    training = TrainingContract(**{name: terms[name] for name in TrainingContract.model_fields})
    return Selection(
        datasets=datasets, contract=training.digest, champion=champion, challenger=challenger
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
    """How much choosing the checkpoint on the test set would have overstated one method's accuracy.

    On this selection bias: Cawley and Talbot (2010), "On over-fitting in model selection and
    subsequent selection bias in performance evaluation", JMLR 11.

    Args:
        validation: score of every checkpoint by step, without the base (step 0).
        test_hits: hits (n,) on one test set at the same steps.

    Raises:
        ResultError: there is no checkpoint, the steps differ, or the hits are empty or have a NaN.

    Example: validation best at step 20, test 50 % there and 60 % at step 40 -> overclaim 10 points
    """
    if not validation or validation.keys() != test_hits.keys():
        raise ResultError(
            got=f"steps {sorted(validation)} on validation, {sorted(test_hits)} on the test set",
            need="the same steps on both, at least one",
            because="both ways of choosing need the same checkpoints to choose from",
            do="evaluate every checkpoint on every dataset",
        )
    for step, hits in test_hits.items():
        if np.size(hits) == 0 or not np.isfinite(hits).all():
            raise ResultError(
                got=f"step {step}: no hits, or a hit that is not a number",
                need="a hit or a miss for every row",
                because="an accuracy over part of the rows is not comparable",
                do="evaluate the checkpoint again",
            )
    accuracies = {step: 100 * float(np.mean(hits)) for step, hits in test_hits.items()}
    chosen = best_step(validation)
    best = min(accuracies, key=lambda step: (-accuracies[step], step))
    return LeakingChoice(chosen, accuracies[chosen], best, accuracies[best])


def _score_checkpoint(
    root: Path, datasets: list[str], method: str, step: int
) -> tuple[Choice, dict[str, dict[str, Any]]]:
    """A checkpoint's scores over all validation datasets, and the contract of each result file."""
    results, contracts, digests = [], {}, []
    for dataset in datasets:
        file = paths.result_file(method, dataset, step)
        result = read_results(root / file)
        meta = result.meta or {}
        results.append(score_results(result))
        contracts[str(file)] = meta["contract"]
        digests.append(meta["checkpoint_digest"])
    score = pooled_score(results)
    choice = Choice(
        method=method,
        step=step,
        checkpoint=paths.checkpoint_dir(method, step).as_posix(),
        digest=digests[0],
        accuracy=score.accuracy,
        mean_iou=score.mean_iou,
    )
    return choice, contracts


def _rank(step: int, score: ValidationScore) -> tuple[float, float, int]:
    """Sort key: best accuracy first, then best mean IoU, then the earliest step."""
    return -score.accuracy, -score.mean_iou, step
