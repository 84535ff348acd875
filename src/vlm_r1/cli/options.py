"""Options that several commands share, and the headings under which `vlm-r1 --help` lists them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from vlm_r1.config import Params, load_params, profile_file

PIPELINE = "Pipeline"
DATA = "Data"
TRAINING = "Training"
EVALUATION = "Evaluation"
REPORT = "Report and tracking"

PARAMS = Path("params.yaml")
ParamsFile = Annotated[
    Path | None,
    typer.Option("--params", dir_okay=False, help="The parameter file; default: params.yaml."),
]
ProfileName = Annotated[
    str | None,
    typer.Option("--profile", help="Name of a file in profiles/, instead of --params."),
]
MethodName = Literal["sft", "grpo"]
TrainingSeed = Annotated[
    int | None,
    typer.Option("--seed", help="Use the extra training run of this seed in experiment.seeds."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]


@dataclass(frozen=True)
class ImageSize:
    """Width and height in pixels; on the command line WxH."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


TYPICAL_IMAGE = ImageSize(640, 480)  # COCO's most frequent size


def parse_image_size(text: str) -> ImageSize:
    """Read "640x480".

    Raises:
        typer.BadParameter: not two positive integers joined by an x.
    """
    try:
        width, height = map(int, text.lower().split("x"))
    except ValueError:
        width = height = 0
    if width < 1 or height < 1:
        raise typer.BadParameter(f"{text!r} is not WIDTHxHEIGHT in pixels, e.g. 640x480")
    return ImageSize(width, height)


def params_file(params: Path | None, profile: str | None) -> Path:
    """The file that --params or --profile selects.

    Raises:
        typer.BadParameter: both are given.
        ConfigError: there is no such profile.
    """
    if profile is None:
        return params or PARAMS
    if params is not None:
        raise typer.BadParameter("use either --params or --profile", param_hint="--profile")
    return profile_file(profile)


def load_settings(params: Path | None, profile: str | None) -> Params:
    """Read and check the file that --params or --profile selects."""
    return load_params(params_file(params, profile))
