"""Stage `evaluate`: every checkpoint of a training run on every dataset -> results/<run>.

Completions go through the cache of `inference.cache`, so an evaluation that was killed, or
whose results were removed, goes on where it was. Under `torchrun` the processes share the batches
and the first one writes the results.
"""

from contextlib import nullcontext
from pathlib import Path

from vlm_r1 import paths, tracking
from vlm_r1.config import Params
from vlm_r1.experiment import checkpoint_path
from vlm_r1.files import whole_folder
from vlm_r1.inference.evaluator import make_evaluator
from vlm_r1.models.loading import require_whole_checkpoint
from vlm_r1.rec.results import write_results


def run(params: Params, root: Path, method: str, seed: int | None = None) -> None:
    """Evaluate step 0 (the base, under the method's prompt) and every checkpoint of `method`.

    Args:
        seed: one of experiment.seeds for a further training run, results/<method>-<seed>.

    Raises:
        ConfigError: the experiment has no such seed.
        ModelError: a checkpoint of the grid is missing or broken; nothing is written then.
        ContractError: a checkpoint was trained under other terms.
        ResultError: boxes score significantly better in another coordinate space than in the
            task's.
    """
    evaluator = make_evaluator(params, root, method, seed=seed)
    checkpoints = {
        step: checkpoint_path(params, root, evaluator.run, step, evaluator.contract)
        for step in params.train.step_grid
    }
    for checkpoint in checkpoints.values():  # before hours are spent on those before it
        require_whole_checkpoint(checkpoint)
    writes = evaluator.distributed.is_main_process
    with whole_folder(root / paths.RESULTS / evaluator.run) if writes else nullcontext() as output:
        for step, checkpoint in checkpoints.items():
            for eval_set, result in evaluator.evaluate_checkpoint(step, checkpoint):
                if writes:
                    write_results(output / eval_set.name / f"step-{step}.json", result)
    if writes:
        tracking.best_effort(tracking.track_evaluation, root, params, method, seed)
    evaluator.distributed.destroy_process_group()
