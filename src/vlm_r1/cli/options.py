"""Options that several commands of `vlm-r1` have in common."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vlm_r1.config import profile_file

PARAMS = Path("params.yaml")
ParamsFile = Annotated[Path, typer.Option("--params", help="The params file.")]
ProfileName = Annotated[
    str | None, typer.Option("--profile", help="A file in profiles/, instead of --params.")
]
MethodName = Literal["sft", "grpo"]
TrainingSeed = Annotated[
    int | None, typer.Option("--seed", help="A further training run, one of experiment.seeds.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def params_file(params: Path, profile: str | None) -> Path:
    """The profile's file if one is named."""
    return params if profile is None else profile_file(profile)
