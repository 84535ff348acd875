"""Which checkpoints to stand behind: the best of each method on validation records alone.

A test or out-of-domain file is never opened here: a checkpoint chosen by looking at them would
make their scores a promise about themselves.
"""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from vlm_r1 import paths
from vlm_r1.config import METHODS, Params
from vlm_r1.contract import TrainingContract, require_equal
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.results import read_results


class Choice(BaseModel):
    """One method's best checkpoint and its scores over all validation records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
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
        candidates = [_candidate(params, root, method, step, contracts) for step in steps]
        choices.append(min(candidates, key=_rank))
    require_equal(contracts)
    champion, challenger = sorted(choices, key=_rank)
    terms = next(iter(contracts.values()))
    training = TrainingContract(**{name: terms[name] for name in TrainingContract.model_fields})
    return Selection(
        datasets=params.names("validation"),
        contract=training.digest,
        champion=champion,
        challenger=challenger,
    )


def _candidate(
    params: Params, root: Path, method: str, step: int, contracts: dict[str, dict]
) -> Choice:
    """One checkpoint's scores, all validation datasets pooled; notes each file's contract."""
    files = [paths.result_file(method, name, step) for name in params.names("validation")]
    results = [read_results(root / file) for file in files]
    for file, result in zip(files, results, strict=True):
        contracts[str(file)] = result.meta["contract"]
    scores = [score_results(result) for result in results]
    return Choice(
        method=method,
        step=step,
        checkpoint=paths.checkpoint_dir(method, step).as_posix(),
        digest=results[0].meta["checkpoint_digest"],
        accuracy=100 * float(np.concatenate([score.hit for score in scores]).mean()),
        mean_iou=float(np.concatenate([score.overlap for score in scores]).mean()),
    )


def _rank(choice: Choice) -> tuple[float, float, int]:
    """Sorts the best first; of equals, `sorted` and `min` keep the order of METHODS."""
    return -choice.accuracy, -choice.mean_iou, choice.step
