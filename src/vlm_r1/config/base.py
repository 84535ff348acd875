"""What every section of params.yaml is made of."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Pair = Annotated[list[Count], Field(min_length=2, max_length=2)]
CoordinateSpace = Literal["original", "input", "thousand", "unit"]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A section of params.yaml: frozen, no unknown keys, no silent type changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class InputTerms(Section):
    """How an image enters the model and in which coordinate space a box leaves it."""

    coordinate_space: CoordinateSpace
    min_pixels: Count
    max_pixels: Count

    @model_validator(mode="after")
    def _budget_is_ordered(self) -> "InputTerms":
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}")
        return self
