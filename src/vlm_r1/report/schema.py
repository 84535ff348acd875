"""report.json as a type: the one schema that tracking, flows and readers rely on.

Accuracies and differences are percent (points); `difference` is grpo minus sft; mean IoU and
parse rate are 0-1. A change of any field is a new SCHEMA_VERSION.
"""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = "1"


class Part(BaseModel):
    """A frozen piece of the report, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Verdict(Part):
    """The answer, at the last common step on the first out-of-domain dataset."""

    text: str
    ood_dataset: str
    step: int
    difference: float
    ci_low: float
    ci_high: float
    p_value: float


class DatasetLine(Part):
    """A dataset and its size."""

    name: str
    role: str
    records: int
    images: int
    digest: str | None  # of the records; null where a log does not tell


class CurvePoint(Part):
    """One unit's scores."""

    method: str
    dataset: str
    step: int
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    mean_iou: float
    parse_rate: float


class Comparison(Part):
    """grpo minus sft on the same rows."""

    dataset: str
    step: int
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    n: int
    n_images: int


class Cost(Part):
    """What training took; one completion a prompt for sft, several for grpo."""

    method: str
    seconds: float
    prompts: int
    completions: int
    tokens: int


class Lineage(Part):
    """Code, data, packages and tracking run behind the numbers."""

    git_commit: str | None = None
    dvc: dict[str, dict[str, str]] = {}  # stage -> output -> md5
    versions: dict[str, str | None] = {}
    mlflow_run_id: str | None = None


class Report(Part):
    """All of report.json."""

    schema_version: str = SCHEMA_VERSION
    verdict: Verdict
    contract: dict[str, Any]
    datasets: list[DatasetLine]
    curves: list[CurvePoint]
    comparisons: list[Comparison]
    cost: list[Cost]
    lineage: Lineage
    unfair: list[str] = []  # terms in which the contracts differ; written only where there are any

    def to_json(self) -> str:
        """The text of report.json."""
        values = self.model_dump(mode="json")
        if not self.unfair:
            del values["unfair"]
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"
