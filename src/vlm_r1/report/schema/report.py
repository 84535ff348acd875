"""All of report.json."""

import json
from typing import Any

from pydantic import Field

from vlm_r1.report.schema.answers import (
    Answers,
    CommonPrompts,
    Detection,
    PromptLine,
    Repeats,
    Slices,
)
from vlm_r1.report.schema.base import Part
from vlm_r1.report.schema.costs import Choices, Compute, Cost, CostPerPoint, FairnessTerm
from vlm_r1.report.schema.curves import (
    ChosenLine,
    Comparison,
    CoordinateFlag,
    CurvePoint,
    DatasetLine,
    DecompositionLine,
    GainLine,
    PooledLine,
    Verdict,
)
from vlm_r1.report.schema.lineage import Command, Lineage, PublishedSeries, TrainingLog
from vlm_r1.report.schema.statistics import SelectionLine, Statistics, ThresholdLine

SCHEMA_VERSION = "4"


class Report(Part):
    """All of report.json."""

    schema_version: str = SCHEMA_VERSION
    verdict: Verdict
    contract: dict[str, Any]
    datasets: list[DatasetLine]
    curves: list[CurvePoint]
    gains: list[GainLine]  # empty without step 0
    comparisons: list[Comparison]
    pooled: list[PooledLine]  # empty unless there are several out-of-domain datasets
    statistics: Statistics
    selection: list[SelectionLine]  # empty if there are no validation results
    chosen: list[ChosenLine]  # as `selection`
    decomposition: list[DecompositionLine]
    coordinate_flags: list[CoordinateFlag]  # empty if every result's boxes are in its space
    fairness: list[FairnessTerm]
    choices: Choices
    slices: Slices
    thresholds: list[ThresholdLine]
    answers: Answers
    repeats: Repeats | None  # null if `evaluate.repeats` is 0
    prompts: list[PromptLine]  # empty if `report.prompt_matrix` is off
    common_prompts: CommonPrompts
    published: list[PublishedSeries]  # empty unless a dataset is one that VLM-R1 published on
    training: list[TrainingLog]
    cost: list[Cost]
    cost_per_point: list[CostPerPoint]  # empty if costs are unknown
    compute: Compute
    reproduce: list[Command]
    lineage: Lineage
    unfair: list[str] = Field(
        default_factory=list
    )  # terms in which the contracts differ; not written if empty
    detection: Detection | None = None  # not written if no row has several boxes

    def to_json(self) -> str:
        """The text of report.json."""
        values = self.model_dump(mode="json")
        if not self.unfair:
            del values["unfair"]
        if self.detection is None:
            del values["detection"]
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"
