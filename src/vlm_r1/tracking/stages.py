"""What each stage records in MLflow: one call a stage, so that stages know nothing else of it.

Training, evaluation and report go on when MLflow fails: the files have everything, and
`vlm-r1 track` records it later. Only the registry must be reachable.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlm_r1.config import Method, Params
from vlm_r1.evaluation.selection import Selection
from vlm_r1.experiment import contract_of
from vlm_r1.rec.contract import TrainingContract
from vlm_r1.tracking.evaluations import track_evaluation
from vlm_r1.tracking.live_logging import live_run
from vlm_r1.tracking.registry import register
from vlm_r1.tracking.reports import track_report
from vlm_r1.tracking.runs import pipeline_run_id
from vlm_r1.tracking.store import best_effort, is_first_process
from vlm_r1.tracking.trainings import track_training


@contextmanager
def training_run(
    root: Path, params: Params, contract: TrainingContract, method: Method
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A child run for the training in the block; records its checkpoints when the block ends.

    Yields:
        A function that takes a line of the training's log and returns at once.
    """
    with live_run(root, params, contract, method) as run:
        yield run.log
    if is_first_process():
        best_effort(track_training, root, params, contract, method)


def after_evaluation(root: Path, params: Params, method: Method, seed: int | None) -> None:
    """Record the scores of a training run's checkpoints."""
    best_effort(track_evaluation, root, params, method, seed)


@contextmanager
def report_run(root: Path, params: Params) -> Iterator[str | None]:
    """The parent run for the report written in the block; records the report when the block ends.

    Yields:
        The run's id; None if MLflow fails.
    """
    contract = contract_of(params, root)
    yield best_effort(pipeline_run_id, root, params, contract)
    best_effort(track_report, root, params, contract)


def register_selection(root: Path, params: Params, selection: Selection) -> None:
    """Register the chosen checkpoints.

    Raises:
        MlflowException: the registry cannot be reached.
    """
    register(root, params, selection)
