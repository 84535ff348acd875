"""report.json: training logs, published curves, commands and lineage."""

from pydantic import Field

from vlm_r1.data.versions import DatasetVersion
from vlm_r1.report.schema.base import Part


class TrainingLog(Part):
    """Logged quantities of a training: quantity -> [(step, value), ...]."""

    method: str
    quantities: dict[str, list[tuple[int, float]]]
    reason: str | None = None  # why there are none


class PublishedSeries(Part):
    """A published curve on a dataset of this report, or on the mean of several of them."""

    source: str
    method: str
    datasets: list[str]
    points: list[tuple[int, float]]  # (step, percent)
    withdrawn: bool
    note: str


class Command(Part):
    """A command line and what it reproduces."""

    what: str
    command: str


class Lineage(Part):
    """Code, data, packages and tracking run behind the numbers."""

    git_commit: str | None = None
    data: dict[str, DatasetVersion] = Field(
        default_factory=dict
    )  # dataset -> the files it was read from
    dvc: dict[str, dict[str, str]] = Field(default_factory=dict)  # stage -> output -> md5
    versions: dict[str, str | None] = Field(default_factory=dict)
    mlflow_run_id: str | None = None
