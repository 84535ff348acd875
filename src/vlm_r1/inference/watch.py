"""`vlm-r1 prefetch`: answers checkpoints ahead of the stage, also while training still writes them.

It only fills the cache of completions; the stage `evaluate` finds them there and writes results.
"""

import logging
import time
from pathlib import Path

from vlm_r1 import paths
from vlm_r1.config import Params
from vlm_r1.errors import ModelError
from vlm_r1.experiment import base_path, require_terms
from vlm_r1.files import part_of
from vlm_r1.inference.evaluator import Evaluation, begin
from vlm_r1.models.loading import require_whole_checkpoint

logger = logging.getLogger(__name__)


def run(
    params: Params,
    root: Path,
    method: str,
    device: str | None = None,
    patience_s: float = 0,
    poll_s: float = 2,
    seed: int | None = None,
) -> None:
    """Evaluate each checkpoint of `method` as soon as it is whole; ends with the step grid.

    Args:
        device: as torch names it ("cpu", "cuda:1"); by default this process's own.
        patience_s: how long to wait for each next checkpoint.
        poll_s: pause between two looks.
        seed: one of experiment.seeds for a further training run.

    Raises:
        ConfigError: the experiment has no such seed.
        ModelError: a checkpoint is broken, or did not come in time.
        ContractError: a checkpoint was trained under other terms.
    """
    evaluation = begin(params, root, method, device, seed)
    evaluation.results(0, base_path(params, root))
    name = evaluation.run
    for step in params.train.step_grid[1:]:
        while not _evaluated(evaluation, step, _await(root, name, step, patience_s, poll_s)):
            logger.info("%s step %d: training has ended and moved it", name, step)
    evaluation.share.destroy_process_group()


def find_checkpoint(root: Path, run: str, step: int) -> Path | None:
    """Folder of a whole checkpoint, relative to `root`; None while there is none.

    As long as a training writes, whatever lies in `models/<run>` is of an earlier one.
    """
    final = paths.checkpoint_dir(run, step)
    growing = part_of(paths.run_dir(run))
    folder = growing / final.name if (root / growing).exists() else final
    return folder if (root / folder / "contract.json").exists() else None


def _await(root: Path, run: str, step: int, patience_s: float, poll_s: float) -> Path:
    deadline = time.monotonic() + patience_s
    growing, grew = root / part_of(paths.run_dir(run)), False
    while True:
        grows = growing.exists()  # before the look, so that a training's end is not missed
        grew |= grows
        if found := find_checkpoint(root, run, step):
            return found
        if grew and not grows:
            raise _missing(run, step, "and training has ended")
        if time.monotonic() >= deadline:
            raise _missing(run, step, f"after {patience_s:g} s")
        time.sleep(poll_s)


def _missing(run: str, step: int, when: str) -> ModelError:
    return ModelError(
        got=f"no {paths.checkpoint_dir(run, step)} {when}",
        need="every checkpoint of the step grid, as training wrote it",
        because="a curve with a gap would be taken for a whole one",
        do="train (`dvc repro`); `--watch` and `--patience-s` wait for it",
    )


def _evaluated(evaluation: Evaluation, step: int, checkpoint: Path) -> bool:
    """False if training ended in the meantime and the checkpoint lies elsewhere now."""
    try:
        require_terms(evaluation.root, checkpoint, evaluation.contract)
        require_whole_checkpoint(evaluation.root / checkpoint)
        evaluation.results(step, evaluation.root / checkpoint)
    except (ModelError, FileNotFoundError):
        if (evaluation.root / checkpoint).exists():
            raise
        return False
    return True
