"""`vlm-r1 stage ...`: one command a stage of dvc.yaml. Heavy imports stand inside."""

from pathlib import Path
from typing import Annotated

import typer

from vlm_r1.cli.options import PARAMS, MethodName, ParamsFile, TrainingSeed
from vlm_r1.config import load_params
from vlm_r1.processes import end_with_parent

stage_app = typer.Typer(help="Run one stage of dvc.yaml (DVC calls these; `dvc repro` runs all).")


@stage_app.command("draw")
def stage_draw(params: ParamsFile = PARAMS) -> None:
    """Draw the worlds: images and VLM-R1 records."""
    from vlm_r1.stages import draw

    draw.run(load_params(params), Path.cwd())


@stage_app.command("unpack")
def stage_unpack(source: str) -> None:
    """Unpack data/raw/SOURCE.zip as data/unpacked/SOURCE."""
    from vlm_r1.stages import unpack

    unpack.run(Path.cwd(), source)


@stage_app.command("version")
def stage_version(dataset: str, params: ParamsFile = PARAMS) -> None:
    """Write down which bytes a dataset is made of."""
    from vlm_r1.stages import version

    version.run(load_params(params), Path.cwd(), dataset)


@stage_app.command("prepare")
def stage_prepare(params: ParamsFile = PARAMS) -> None:
    """Read, validate and write records.parquet."""
    from vlm_r1.stages import prepare

    prepare.run(load_params(params), Path.cwd())


@stage_app.command("base")
def stage_base(params: ParamsFile = PARAMS) -> None:
    """Raise the tiny base model (20 minutes on two recent cores)."""
    from vlm_r1.stages import base

    base.run(load_params(params), Path.cwd())


@stage_app.command("sft")
def stage_sft(seed: TrainingSeed = None, params: ParamsFile = PARAMS) -> None:
    """Train the base by SFT, on as many processes as `launch` asks for."""
    _train("sft", seed, params)


@stage_app.command("grpo")
def stage_grpo(seed: TrainingSeed = None, params: ParamsFile = PARAMS) -> None:
    """Train the base by GRPO, on as many processes as `launch` asks for."""
    _train("grpo", seed, params)


def _train(method: MethodName, seed: int | None, params: Path) -> None:
    from vlm_r1 import launch as launching

    settings = load_params(params)
    if launching.is_needed(settings.launch.processes):
        plan = launching.training_plan(settings, method, params, seed=seed)
        raise typer.Exit(launching.run_plan(plan))
    if launching.is_worker():
        end_with_parent()
    if method == "sft":
        from vlm_r1.stages import sft

        sft.run(settings, Path.cwd(), seed)
    else:
        from vlm_r1.stages import grpo

        grpo.run(settings, Path.cwd(), seed)


@stage_app.command("evaluate")
def stage_evaluate(
    method: MethodName, seed: TrainingSeed = None, params: ParamsFile = PARAMS
) -> None:
    """Evaluate every checkpoint of one method on every dataset, on this node's processes."""
    from vlm_r1 import launch as launching

    settings = load_params(params)
    if launching.is_needed(settings.launch.processes_per_node):
        plan = launching.evaluation_plan(settings, method, params, seed)
        raise typer.Exit(launching.run_plan(plan))
    if launching.is_worker():
        end_with_parent()
    from vlm_r1.stages import evaluate

    evaluate.run(settings, Path.cwd(), method, seed)


@stage_app.command("prompts")
def stage_prompts(params: ParamsFile = PARAMS) -> None:
    """Ask the base and the best checkpoints with every prompt, if report.prompt_matrix is set."""
    from vlm_r1.stages import prompts

    prompts.run(load_params(params), Path.cwd())


@stage_app.command("report")
def stage_report(
    params: ParamsFile = PARAMS,
    allow_unfair: Annotated[
        bool, typer.Option(help="Go on when contracts differ, and stamp every page.")
    ] = False,
) -> None:
    """Compare the methods and write reports/generalization."""
    from vlm_r1.stages import report

    report.run_tracked(load_params(params), Path.cwd(), allow_unfair)


@stage_app.command("register")
def stage_register(params: ParamsFile = PARAMS) -> None:
    """Register the checkpoint that is best on validation as champion."""
    from vlm_r1.stages import register

    chosen = register.run(load_params(params), Path.cwd())
    typer.echo(chosen.model_dump_json(indent=1))
