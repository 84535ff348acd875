"""Stage `evaluate`: every checkpoint of a training run on every dataset -> results/<run>.

Completions are cached (`inference.cache`), so an evaluation that was killed, or whose results were
removed, continues where it stopped. Under `torchrun` the processes share the batches and the first
one writes the results.
"""

from contextlib import nullcontext
from pathlib import Path

from vlm_r1 import paths, tracking
from vlm_r1.config import Method, Params
from vlm_r1.experiment import checkpoint_path
from vlm_r1.files import whole_folder
from vlm_r1.inference.evaluator import make_evaluator
from vlm_r1.models.loading import require_whole_checkpoint
from vlm_r1.rec.results import write_results


def run(params: Params, root: Path, method: Method, seed: int | None = None) -> None:
    """Evaluate step 0 (the base, under the method's prompt) and every checkpoint of `method`.

    Args:
        seed: one of experiment.seeds for a further training run, results/<method>-<seed>.

    Raises:
        ConfigError: the experiment has no such seed.
        ModelError: a checkpoint of the step grid is missing or broken; nothing is written then.
        ContractError: a checkpoint was trained under another contract.
        ResultError: boxes score far better in another coordinate space than the task's, at step 0
            or at every trained step; nothing is written then.
    """
    evaluator = make_evaluator(params, root, method, seed=seed)
    checkpoints = {
        step: checkpoint_path(params, root, evaluator.run, step, evaluator.contract)
        for step in params.step_grid(method)
    }
    for checkpoint in checkpoints.values():  # find a broken one before hours are spent
        require_whole_checkpoint(checkpoint)
    writes = evaluator.distributed.is_main_process
    with whole_folder(root / paths.RESULTS / evaluator.run) if writes else nullcontext() as output:
        checks = []
        for step, checkpoint in checkpoints.items():
            for eval_set, result, check in evaluator.evaluate_checkpoint(step, checkpoint):
                checks.append((step, eval_set.name, check))
                if output is not None:
                    write_results(output / eval_set.name / f"step-{step}.json", result)
        evaluator.require_coordinate_space(checks)
    if writes:
        tracking.after_evaluation(root, params, method, seed)
    evaluator.distributed.destroy_process_group()
