"""The run tree in MLflow: a parent run per contract, and a child run per training of a method."""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_r1 import paths
from vlm_r1.config import Method, Params
from vlm_r1.evaluation.search import with_choice
from vlm_r1.rec.contract import TrainingContract, read_terms
from vlm_r1.tracking.entities import as_yaml, dataset_input, log_params
from vlm_r1.tracking.store import configure, experiment_id_of, search_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

CONTRACT, METHOD, KIND = "vlm_r1.contract", "vlm_r1.method", "vlm_r1.kind"  # tags
FOLDER = "vlm_r1.folder"  # tag: machine and folder that a child run's training writes to


@dataclass(frozen=True)
class RunContext:
    """A training run: the place of its child runs in MLflow, and the files they show.

    Attributes:
        params: of the experiment, without the seed of a further run; `contract` has that.
    """

    client: "MlflowClient"
    experiment_id: str
    root: Path
    params: Params
    contract: TrainingContract
    method: Method

    @property
    def name(self) -> str:
        """The name of the training run's folders."""
        return self.params.run_name(self.method, self.contract.seed)

    @property
    def step_grid(self) -> list[int]:
        """Step 0 and the steps of its checkpoints."""
        return self.params.step_grid(self.method)

    @property
    def files(self) -> Path:
        """The folder that the training writes."""
        return self.root / paths.run_dir(self.name)

    def runs(self) -> list["Run"]:
        """Its child runs, the newest first."""
        tags = {METHOD: self.method, CONTRACT: self.contract.digest}
        return search_runs(self.client, self.experiment_id, tags)

    def models(self, run_id: str) -> dict[int, "LoggedModel"]:
        """The LoggedModels of one of its runs, by step."""
        found = self.client.search_logged_models(
            [self.experiment_id], f"source_run_id = '{run_id}'", max_results=1000
        )
        return {int(model.params["step"]): model for model in found}

    def find_recorded(self, digests: dict[int, str]) -> tuple[str, dict[int, "LoggedModel"]] | None:
        """The newest run whose LoggedModels have these digests (step -> digest), with its models.

        A run is found by what it produced, so that checkpoints which DVC brings back lead to the
        run that trained them.
        """
        for run in self.runs():
            models = self.models(run.info.run_id)
            if {step: model.params["digest"] for step, model in models.items()} == digests:
                return run.info.run_id, models
        return None

    def just_ended(self) -> str | None:
        """The newest run, if it has finished and has no models yet."""
        for run in self.runs()[:1]:
            if run.info.status == "FINISHED" and not self.models(run.info.run_id):
                return run.info.run_id
        return None


def run_context(
    root: Path, params: Params, contract: TrainingContract, method: Method
) -> RunContext:
    """The run context of `method` under this contract; connects to MLflow.

    Raises:
        ResultError: the score of a search's candidate is missing.
    """
    params = with_choice(params, root, method)
    client = configure(root)
    experiment_id = experiment_id_of(client, root, params)
    return RunContext(client, experiment_id, root, params, contract, method)


def read_contract(
    root: Path, params: Params, method: Method, seed: int | None = None
) -> TrainingContract:
    """The contract that a training run's last checkpoint was trained under.

    Raises:
        ModelError: the checkpoint is missing.
    """
    folder = paths.checkpoint_dir(params.run_name(method, seed), params.steps_of(method))
    return TrainingContract.model_validate(read_terms(root, folder))


def pipeline_run_id(root: Path, params: Params, contract: TrainingContract) -> str:
    """The id of the parent run of all training runs under this contract, created if missing."""
    # runs of all seeds share a parent: its contract is that of the first seed
    contract = contract.model_copy(update={"seed": params.experiment.seed})
    client = configure(root)
    experiment_id = experiment_id_of(client, root, params)
    found = search_runs(client, experiment_id, {KIND: "pipeline", CONTRACT: contract.digest})
    if found:
        return found[-1].info.run_id
    run_id = client.create_run(
        experiment_id,
        run_name=f"pipeline-{contract.digest[:8]}",
        tags={KIND: "pipeline", CONTRACT: contract.digest},
    ).info.run_id
    log_params(client, run_id, contract.model_dump())
    client.log_dict(run_id, contract.model_dump(), "contract.json")
    return run_id


def create_child(context: RunContext, parent_id: str) -> str:
    """Create a running child run with the settings of its training; returns its id.

    A child still marked as running for the same folder belongs to a dead process: only one process
    can train into a folder. It is marked KILLED.
    """
    folder = f"{socket.gethostname()}:{context.files.resolve()}"
    for run in context.runs():
        if run.info.status == "RUNNING" and run.data.tags.get(FOLDER) == folder:
            context.client.set_terminated(run.info.run_id, "KILLED")
    tags = {KIND: "method", METHOD: context.method, CONTRACT: context.contract.digest}
    run_id = context.client.create_run(
        context.experiment_id,
        run_name=context.name,
        tags={**tags, FOLDER: folder, "mlflow.parentRunId": parent_id},
    ).info.run_id
    _log_settings(context, run_id)
    return run_id


def _log_settings(context: RunContext, run_id: str) -> None:
    """Log what shapes a training: its sections of params.yaml, the contract, the records."""
    client, contract = context.client, context.contract
    params = context.params.with_seed(contract.seed)
    shaping = {"experiment", "task", "train", context.method}
    log_params(client, run_id, params.model_dump(include=shaping))
    client.log_text(run_id, as_yaml(params), "params.yaml")
    client.log_dict(run_id, contract.model_dump(), "contract.json")
    digest = contract.training_records_digest
    client.log_inputs(run_id, [dataset_input(params.train_datasets, digest, "training")])
