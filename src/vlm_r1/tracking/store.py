"""The MLflow store: how to connect, the experiment in it, and what happens when it fails."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from vlm_r1.config import Params

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

HOME = Path(".mlflow")  # database and artifacts of a project without a server
# Give up on a server that is down within a minute; MLflow's own defaults take ten.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}

logger = logging.getLogger(__name__)
Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


def configure(root: Path) -> "MlflowClient":
    """Point MLflow at MLFLOW_TRACKING_URI, or else at the SQLite file of the project `root`."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.pop("MLFLOW_RUN_ID", None)  # set by `mlflow run`; it is not one of our runs
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
        # set_tracking_uri exports the variable; it must not decide the next call, for another root
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    return mlflow.MlflowClient()


def best_effort(
    record: Callable[Arguments, Returned], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Returned | None:
    """Return `record(...)`, or None with a warning if MLflow fails.

    MLflow only shows what the files hold, so its failure must not cost a training or an
    evaluation. Other errors, such as missing files, are raised.
    """
    try:
        return record(*args, **kwargs)
    except Exception as error:
        from mlflow.exceptions import MlflowException

        if not isinstance(error, MlflowException):
            raise
        logger.warning(
            "MLflow fails; the files have everything, and `vlm-r1 track` sends it: %s",
            first_line(error),
        )
        return None


def first_line(error: Exception) -> str:
    """The first line of an error's message, for a log line."""
    return str(error).splitlines()[0][:200]


def is_first_process() -> bool:
    """True in the only process of a distributed training that tracks: torchrun's rank 0."""
    return int(os.environ.get("RANK", "0")) == 0


def experiment_id_of(client: "MlflowClient", root: Path, params: Params) -> str:
    """The id of the experiment `experiment.name`, which is created if it does not exist."""
    experiment = client.get_experiment_by_name(params.experiment.name)
    if experiment is not None:
        return experiment.experiment_id
    on_server = "MLFLOW_TRACKING_URI" in os.environ  # a server has its own place for artifacts
    artifacts = None if on_server else (root.resolve() / HOME / "artifacts").as_uri()
    experiment_id = client.create_experiment(params.experiment.name, artifact_location=artifacts)
    # Otherwise the UI takes it for a chat agent, and lists checkpoints as "Agent versions".
    client.set_experiment_tag(experiment_id, "mlflow.experimentKind", "custom_model_development")
    return experiment_id


def search_runs(client: "MlflowClient", experiment_id: str, tags: dict[str, str]) -> list["Run"]:
    """Runs with all these tags, the newest first."""
    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    return client.search_runs([experiment_id], query, order_by=["attributes.start_time DESC"])
