"""The search of params section `search`: candidates' scores on validation, and the choice.

The candidate that is most accurate on validation at its last step is trained with; ties go to the
mean IoU, then to the smaller learning rate. No test record is read.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from vlm_r1 import paths
from vlm_r1.config import Method, Params
from vlm_r1.files import read_model


class Candidate(BaseModel):
    """One candidate's training, and its last checkpoint on all validation records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method
    learning_rate: float
    step: int
    accuracy: float  # percent
    mean_iou: float  # 0-1
    seconds: float  # of its training
    flops: float


def read_candidates(params: Params, root: Path, method: Method) -> list[Candidate]:
    """What each candidate of `method` scored, in the order of params; none without a search.

    Raises:
        ResultError: a score is missing or broken.
    """
    return [_read(root, paths.candidate_file(method, rate)) for rate in params.candidates(method)]


def best_candidate(candidates: list[Candidate]) -> Candidate:
    """The choice among one or more.

    Example: 1e-4 with 80 %, 3e-4 with 80 % and a higher mean IoU, 1e-3 with 70 % -> 3e-4
    """
    return min(candidates, key=lambda one: (-one.accuracy, -one.mean_iou, one.learning_rate))


def with_choice(params: Params, root: Path, method: Method) -> Params:
    """`params` with the learning rate that the search chose for `method`; unchanged without one.

    Raises:
        ResultError: a candidate's score is missing or broken.
    """
    candidates = read_candidates(params, root, method)
    if not candidates:
        return params
    return params.as_candidate(method, best_candidate(candidates).learning_rate)


def _read(root: Path, file: Path) -> Candidate:
    return read_model(
        Candidate,
        file,
        root,
        need="the validation score of every candidate that `search` names",
        because="the choice between some of them would not be the search that params describe",
        do="`dvc repro` to train and score what is missing",
    )
