"""The record of a finished training: LoggedModels, cost, samples, and its log if not sent live."""

import json
from pathlib import Path

from vlm_r1 import paths
from vlm_r1.config import Method, Params
from vlm_r1.models.digest import checkpoint_digest
from vlm_r1.rec.contract import TrainingContract, read_terms, require_equal
from vlm_r1.tracking.entities import log_lines, metrics_of
from vlm_r1.tracking.runs import (
    CONTRACT,
    METHOD,
    RunContext,
    create_child,
    pipeline_run_id,
    run_context,
)
from vlm_r1.tracking.samples import log_samples


def track_training(root: Path, params: Params, contract: TrainingContract, method: Method) -> str:
    """Record a finished training: its LoggedModels (step 0 is the base), cost, samples and log.

    The child run is the one that already has these checkpoints, or else the live one that has just
    ended, or else a new one whose metrics are replayed from training_log.jsonl. Returns its id.

    Raises:
        ModelError: a checkpoint of the step grid is missing.
        ContractError: a checkpoint was trained under another contract.
    """
    context = run_context(root, params, contract, method)
    digests = _checkpoint_digests(context)
    recorded = context.find_recorded(digests)
    if recorded is not None:
        return recorded[0]
    run_id = context.just_ended() or _replay(context)
    _log_cost(context, run_id)
    log_samples(context, run_id)
    _create_models(context, run_id, digests)
    return run_id


def _checkpoint_digests(context: RunContext) -> dict[int, str]:
    """Digest of each checkpoint by step; all must have been trained under the run's contract."""
    root, contract = context.root, context.contract
    digests = {0: contract.base_digest}
    for step in context.step_grid[1:]:
        folder = paths.checkpoint_dir(context.name, step)
        trained_under = read_terms(root, folder)
        require_equal({"this pipeline": contract.model_dump(), str(folder): trained_under})
        digests[step] = checkpoint_digest(root / folder)
    return digests


def _create_models(context: RunContext, run_id: str, digests: dict[int, str]) -> None:
    """Create one LoggedModel per checkpoint that points at its folder; weights are not copied."""
    import mlflow
    from mlflow.entities import LoggedModelOutput

    method, run, outputs = context.method, context.name, []
    for step, digest in digests.items():
        base = context.params.task.base_model
        folder = paths.checkpoint_dir(run, step).as_posix() if step else base
        model = mlflow.create_external_model(
            name=f"{run}-step-{step}",
            source_run_id=run_id,
            experiment_id=context.experiment_id,
            model_type="checkpoint",
            params={"method": method, "step": str(step), "checkpoint": folder, "digest": digest},
            tags={METHOD: method, CONTRACT: context.contract.digest},
        )
        outputs.append(LoggedModelOutput(model.model_id, step))
    context.client.log_outputs(run_id, outputs)


def _replay(context: RunContext) -> str:
    """Create a child run with the metrics of training_log.jsonl; returns its id."""
    parent_id = pipeline_run_id(context.root, context.params, context.contract)
    run_id = create_child(context, parent_id)
    file = context.files / "training_log.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    log_lines(context.client, run_id, lines)
    context.client.set_tag(run_id, "vlm_r1.replayed_from", file.name)
    context.client.set_terminated(run_id, "FINISHED")
    return run_id


def _log_cost(context: RunContext, run_id: str) -> None:
    """Log what the training took, and what it had taken at each checkpoint."""
    cost = json.loads((context.files / "cost.json").read_text(encoding="utf-8"))
    metrics = [
        metric
        for one in (*cost.pop("checkpoints"), {**cost, "step": context.step_grid[-1]})
        for metric in metrics_of(
            {f"cost/{k}": value for k, value in one.items() if k not in ("method", "step")},
            one["step"],
        )
    ]
    context.client.log_batch(run_id, metrics=metrics)
