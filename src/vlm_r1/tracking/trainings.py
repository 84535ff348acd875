"""A finished training's record: LoggedModels, cost, samples, and its log if it is not there yet."""

import json
from pathlib import Path

from vlm_r1 import paths
from vlm_r1.config import Params
from vlm_r1.models.digest import checkpoint_digest
from vlm_r1.rec.contract import TrainingContract, read_terms, require_equal
from vlm_r1.tracking.runs import (
    CONTRACT,
    METHOD,
    Branch,
    branch_of,
    create_child,
    log_lines,
    metrics_of,
    pipeline_run_id,
)
from vlm_r1.tracking.samples import log_samples


def track_training(root: Path, params: Params, contract: TrainingContract, method: str) -> str:
    """Record a finished training: its LoggedModels (step 0 is the base), cost, samples and log.

    The child run is the one that already holds these checkpoints, or the live one that has just
    ended, or a new one whose metrics are replayed from training_log.jsonl. Returns its id.

    Raises:
        ModelError: a checkpoint of the step grid is missing.
        ContractError: a checkpoint was trained under another contract.
    """
    branch = branch_of(root, params, contract, method)
    digests = _checkpoint_digests(branch)
    recorded = branch.find_recorded(digests)
    if recorded is not None:
        return recorded[0]
    run_id = branch.just_ended() or _replay(branch)
    _log_cost(branch, run_id)
    log_samples(branch, run_id)
    _create_models(branch, run_id, digests)
    return run_id


def _checkpoint_digests(branch: Branch) -> dict[int, str]:
    root, contract = branch.root, branch.contract
    digests = {0: contract.base_digest}
    for step in contract.step_grid[1:]:
        folder = paths.checkpoint_dir(branch.name, step)
        trained_under = read_terms(root, folder)
        require_equal({"this pipeline": contract.model_dump(), str(folder): trained_under})
        digests[step] = checkpoint_digest(root / folder)
    return digests


def _create_models(branch: Branch, run_id: str, digests: dict[int, str]) -> None:
    """One LoggedModel per checkpoint; the weights stay where they are."""
    import mlflow
    from mlflow.entities import LoggedModelOutput

    method, run, outputs = branch.method, branch.name, []
    for step, digest in digests.items():
        base = branch.params.task.base_model
        where = paths.checkpoint_dir(run, step).as_posix() if step else base
        model = mlflow.create_external_model(
            name=f"{run}-step-{step}",
            source_run_id=run_id,
            experiment_id=branch.experiment_id,
            model_type="checkpoint",
            params={"method": method, "step": str(step), "checkpoint": where, "digest": digest},
            tags={METHOD: method, CONTRACT: branch.contract.digest},
        )
        outputs.append(LoggedModelOutput(model.model_id, step))
    branch.client.log_outputs(run_id, outputs)


def _replay(branch: Branch) -> str:
    """A new child run with what training_log.jsonl says; returns its id."""
    parent_id = pipeline_run_id(branch.root, branch.params, branch.contract)
    run_id = create_child(branch, parent_id)
    file = branch.files / "training_log.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    log_lines(branch.client, run_id, lines)
    branch.client.set_tag(run_id, "vlm_r1.replayed_from", file.name)
    branch.client.set_terminated(run_id, "FINISHED")
    return run_id


def _log_cost(branch: Branch, run_id: str) -> None:
    cost = json.loads((branch.files / "cost.json").read_text(encoding="utf-8"))
    numbers = {f"cost/{key}": value for key, value in cost.items() if key != "method"}
    branch.client.log_batch(run_id, metrics=metrics_of(numbers, branch.contract.step_grid[-1]))
