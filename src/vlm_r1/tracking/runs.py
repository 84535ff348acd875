"""Where things are in MLflow: the store, the experiment, parent and child runs."""

import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from vlm_r1 import paths
from vlm_r1.config import Params
from vlm_r1.rec.contract import TrainingContract, read_terms

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, LoggedModel, Metric, Run

HOME = Path(".mlflow")  # database and artifacts of a project without a server
CONTRACT, METHOD, KIND = "vlm_r1.rec.contract", "vlm_r1.method", "vlm_r1.kind"  # tags
FOLDER = "vlm_r1.folder"  # tag: machine and folder that a child run's training writes to
DIGEST_CHARACTERS = 36  # MLflow's limit for a dataset's digest
METRICS_PER_CALL = 1000  # MLflow's limit for one call
# A server that is away is given up on within a minute, not within MLflow's ten.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunContext:
    """One training run's branch of the run tree: where it is in MLflow, which files it shows."""

    client: "MlflowClient"
    experiment_id: str
    root: Path
    params: Params
    contract: TrainingContract
    method: str

    @property
    def name(self) -> str:
        """What the training run's folders are called."""
        return self.params.run_name(self.method, self.contract.seed)

    @property
    def files(self) -> Path:
        """What the training has left."""
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
        """The newest run whose LoggedModels are these checkpoints (step -> digest), and them."""
        for run in self.runs():
            models = self.models(run.info.run_id)
            if {step: model.params["digest"] for step, model in models.items()} == digests:
                return run.info.run_id, models
        return None

    def just_ended(self) -> str | None:
        """The newest run, if it ended well and waits for its models."""
        for run in self.runs()[:1]:
            if run.info.status == "FINISHED" and not self.models(run.info.run_id):
                return run.info.run_id
        return None


def run_context(root: Path, params: Params, contract: TrainingContract, method: str) -> RunContext:
    """The branch of `method` under this contract."""
    client = configure(root)
    return RunContext(
        client, experiment_id_of(client, root, params), root, params, contract, method
    )


def configure(root: Path) -> "MlflowClient":
    """Point MLflow at MLFLOW_TRACKING_URI, or else at the SQLite file of the project `root`."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.pop("MLFLOW_RUN_ID", None)  # of `mlflow run`, and no run of ours
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    import mlflow

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if "MLFLOW_TRACKING_URI" in os.environ:
        mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    else:
        home = root.resolve() / HOME
        home.mkdir(exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
        # MLflow exports what it is told; left there, it would outlive a change of `root`.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    return mlflow.MlflowClient()


def best_effort(record: Callable, *arguments: Any) -> Any:
    """What `record(*arguments)` returns; None, and a warning, if MLflow fails.

    MLflow is a view of the files: an error there must not cost a training or an evaluation.
    """
    try:
        return record(*arguments)
    except Exception as error:
        from mlflow.exceptions import MlflowException

        if not isinstance(error, MlflowException):
            raise
        reason = str(error).splitlines()[0][:200]
        logger.warning("MLflow fails, the files have it, `vlm-r1 track` sends it: %s", reason)
        return None


def pipeline_run_id(root: Path, params: Params, contract: TrainingContract) -> str:
    """The parent run of all training runs under this contract; made if there is none."""
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
    """A new, running child run that tells what shapes its training; returns its id.

    A child that still runs for the same folder has lost its process, and is marked KILLED.
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
    _describe_method(context, run_id)
    return run_id


def read_contract(
    root: Path, params: Params, method: str, seed: int | None = None
) -> TrainingContract:
    """The contract that a training run's last checkpoint was trained under.

    Raises:
        ModelError: the checkpoint is missing.
    """
    folder = paths.checkpoint_dir(params.run_name(method, seed), params.train.steps)
    return TrainingContract.model_validate(read_terms(root, folder))


def log_lines(client: "MlflowClient", run_id: str, lines: list[dict[str, Any]]) -> None:
    """Log lines of a training's log, {"step": n, quantity: value}."""
    metrics = [m for line in lines for m in metrics_of(line, line["step"]) if m.key != "step"]
    for start in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_CALL])


def _describe_method(context: RunContext, run_id: str) -> None:
    """What shaped a training: its sections of params.yaml, the contract, the training records."""
    client, contract = context.client, context.contract
    params = context.params.with_seed(contract.seed)
    shaping = {"experiment", "task", "train", context.method}
    log_params(client, run_id, params.model_dump(include=shaping))
    client.log_text(run_id, as_yaml(params), "params.yaml")
    client.log_dict(run_id, contract.model_dump(), "contract.json")
    digest = contract.training_records_digest
    client.log_inputs(run_id, [dataset_input(params.train_dataset, digest, "training")])


def experiment_id_of(client: "MlflowClient", root: Path, params: Params) -> str:
    """The experiment `experiment.name`; made if there is none."""
    experiment = client.get_experiment_by_name(params.experiment.name)
    if experiment is not None:
        return experiment.experiment_id
    on_server = "MLFLOW_TRACKING_URI" in os.environ  # which then has its own place for artifacts
    artifacts = None if on_server else (root.resolve() / HOME / "artifacts").as_uri()
    experiment_id = client.create_experiment(params.experiment.name, artifact_location=artifacts)
    # Without it the UI opens as for chat agents, with checkpoints under "Agent versions".
    client.set_experiment_tag(experiment_id, "mlflow.experimentKind", "custom_model_development")
    return experiment_id


def search_runs(client: "MlflowClient", experiment_id: str, tags: dict[str, str]) -> list["Run"]:
    """Runs with all these tags, the newest first."""
    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    return client.search_runs([experiment_id], query, order_by=["attributes.start_time DESC"])


def metrics_of(numbers: dict[str, float], step: int, **ties: str) -> list["Metric"]:
    """MLflow's metrics of `numbers` at `step`, tied to a model and a dataset if `ties` say so."""
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    return [Metric(_metric_name(k), v, now_ms, step, **ties) for k, v in numbers.items()]


def _metric_name(key: str) -> str:
    """`key` as transformers' MLflowCallback spells it: what MLflow refuses becomes `_`."""
    return re.sub(r"[^0-9A-Za-z_\-\.\ :/]", "_", key)


def dataset_input(name: str, digest: str, context: str) -> "DatasetInput":
    """A dataset by name and digest; MLflow reads nothing of it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": paths.records_file(name).as_posix()})
    dataset = Dataset(name, digest[:DIGEST_CHARACTERS], source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def log_params(client: "MlflowClient", run_id: str, values: dict[str, Any]) -> None:
    """Log nested values as parameters with dotted names."""
    from mlflow.entities import Param

    flat = pd.json_normalize(values, sep=".").iloc[0].to_dict()
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in flat.items()])


def as_yaml(params: Params) -> str:
    """All of params.yaml, resolved."""
    return yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False)
