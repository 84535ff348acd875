"""The parts that all blocks of report.json are made of."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Base of every part of the report: immutable, unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(Part):
    """A difference in points with its interval and its p value."""

    points: float
    ci_low: float
    ci_high: float
    p_value: float


class Share(Part):
    """An accuracy in percent; no interval if all rows are on one image."""

    percent: float
    ci_low: float | None
    ci_high: float | None
