"""Plain values as MLflow's metrics, parameters and dataset inputs."""

import json
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from vlm_r1 import paths
from vlm_r1.config import Params

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric

DIGEST_CHARACTERS = 36  # MLflow's limit for a dataset's digest
METRICS_PER_CALL = 1000  # MLflow's limit for one call


def metrics_of(numbers: dict[str, float], step: int, **ties: str) -> list["Metric"]:
    """`numbers` as metrics at `step`.

    Args:
        ties: model_id, dataset_name and dataset_digest of what was measured, if known.
    """
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    return [Metric(_metric_name(k), v, now_ms, step, **ties) for k, v in numbers.items()]


def log_lines(client: "MlflowClient", run_id: str, lines: list[dict[str, Any]]) -> None:
    """Log lines of a training's log, {"step": n, quantity: value}, as metrics."""
    metrics = [m for line in lines for m in metrics_of(line, line["step"]) if m.key != "step"]
    for start in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_CALL])


def log_params(client: "MlflowClient", run_id: str, values: dict[str, Any]) -> None:
    """Log nested values as parameters with dotted names."""
    from mlflow.entities import Param

    row = pd.json_normalize(values, sep=".").iloc[0]
    client.log_batch(run_id, params=[Param(str(key), str(value)) for key, value in row.items()])


def dataset_input(names: Sequence[str], digest: str, context: str) -> "DatasetInput":
    """Datasets that are used as one, by name and digest; MLflow does not read them.

    Args:
        digest: of the records of all of them.
        context: what it is used for, "training" or "evaluation".
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    uri = ", ".join(paths.records_file(name).as_posix() for name in names)
    source = json.dumps({"uri": uri})
    dataset = Dataset(
        "+".join(names), digest[:DIGEST_CHARACTERS], source_type="local", source=source
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def as_yaml(params: Params) -> str:
    """All of params.yaml, resolved."""
    return yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False)


def _metric_name(key: str) -> str:
    """`key` with `_` for characters that MLflow refuses, as transformers' MLflowCallback does."""
    return re.sub(r"[^0-9A-Za-z_\-\.\ :/]", "_", key)
