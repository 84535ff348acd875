"""Evaluates checkpoints ahead of the stage `evaluate` (`vlm-r1 prefetch`), also during training.

It only fills the cache of completions, from which the stage then writes the results.
"""

import logging
import time
from pathlib import Path

from vlm_r1 import paths
from vlm_r1.config import Method, Params
from vlm_r1.errors import ModelError
from vlm_r1.experiment import base_path, require_terms
from vlm_r1.files import part_of
from vlm_r1.inference.evaluator import Evaluator, make_evaluator
from vlm_r1.models.loading import require_whole_checkpoint

logger = logging.getLogger(__name__)

POLL_S = 2.0  # pause between two looks for a checkpoint


def run(
    params: Params,
    root: Path,
    method: Method,
    device: str | None = None,
    patience_s: float = 0,
    seed: int | None = None,
) -> None:
    """Evaluate each checkpoint of `method` as soon as it is complete, up to the last step.

    Args:
        device: as torch names it ("cpu", "cuda:1"); by default this process's own.
        patience_s: how long to wait for each next checkpoint.
        seed: one of experiment.seeds for a further training run.

    Raises:
        ConfigError: the experiment has no such seed.
        ModelError: a checkpoint is broken, or did not appear in time.
        ContractError: a checkpoint was trained under another contract.
    """
    evaluator = make_evaluator(params, root, method, device, seed)
    evaluator.evaluate_checkpoint(0, base_path(params, root))
    for step in params.step_grid(method)[1:]:
        while not _evaluate_unless_moved(
            evaluator, step, _wait_for_checkpoint(root, evaluator.run, step, patience_s)
        ):
            logger.info("%s step %d: training has ended and moved it", evaluator.run, step)
    evaluator.distributed.destroy_process_group()


def find_checkpoint(root: Path, run: str, step: int) -> Path | None:
    """Folder of a complete checkpoint, relative to `root`; None if there is none yet.

    While a training is writing `models/<run>.part`, checkpoints in `models/<run>` are of an earlier
    training and are ignored. contract.json is written last, so it marks a complete checkpoint.
    """
    final = paths.checkpoint_dir(run, step)
    in_progress = part_of(paths.run_dir(run))
    folder = in_progress / final.name if (root / in_progress).exists() else final
    return folder if (root / folder / "contract.json").exists() else None


def _wait_for_checkpoint(root: Path, run: str, step: int, patience_s: float) -> Path:
    deadline = time.monotonic() + patience_s
    in_progress, was_training = root / part_of(paths.run_dir(run)), False
    while True:
        # Read before looking for the checkpoint: if training ends in between, the next pass of the
        # loop sees that it has ended and still finds its last checkpoint.
        is_training = in_progress.exists()
        was_training |= is_training
        if found := find_checkpoint(root, run, step):
            return found
        if was_training and not is_training:
            raise _missing(run, step, "and training has ended")
        if time.monotonic() >= deadline:
            raise _missing(run, step, f"after {patience_s:g} s")
        time.sleep(POLL_S)


def _missing(run: str, step: int, when: str) -> ModelError:
    return ModelError(
        got=f"no {paths.checkpoint_dir(run, step)} {when}",
        need="every checkpoint of the step grid, as training wrote it",
        because="a curve with a missing step would look complete",
        do="train (`dvc repro`); `--watch` and `--patience-s` wait for it",
    )


def _evaluate_unless_moved(evaluator: Evaluator, step: int, checkpoint: Path) -> bool:
    """Evaluate a checkpoint; False if the end of training moved its folder meanwhile."""
    try:
        require_terms(evaluator.root, checkpoint, evaluator.contract)
        require_whole_checkpoint(evaluator.root / checkpoint)
        evaluator.evaluate_checkpoint(step, evaluator.root / checkpoint)
    except (ModelError, FileNotFoundError):
        if (evaluator.root / checkpoint).exists():
            raise
        return False
    return True
