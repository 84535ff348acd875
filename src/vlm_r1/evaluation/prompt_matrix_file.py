"""The prompt matrix on disk: matrix.json lists the cells; each cell has a result file beside it."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from vlm_r1.files import read_model

FILE = "matrix.json"


class PromptCell(BaseModel):
    """One model prompted with one template on one dataset; `file` is relative to matrix.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Literal["base", "sft", "grpo"]
    step: int
    seed: int | None = None  # of the training run; null for the base
    template: str
    dataset: str
    file: str


class PromptMatrix(BaseModel):
    """All cells; none if the matrix is turned off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cells: list[PromptCell]

    def write(self, folder: Path) -> None:
        """Write matrix.json into `folder`."""
        (folder / FILE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_matrix(folder: Path) -> PromptMatrix:
    """The matrix in `folder`.

    Raises:
        ResultError: matrix.json is missing or broken.
    """
    return read_model(
        PromptMatrix,
        folder / FILE,
        need='{"cells": [...]} as the stage `prompts` writes it, also when it is turned off',
        because="the report says whether prompts were compared",
        do="`dvc repro prompts`",
    )
