"""`vlm-r1 stage ...`: one command per stage of dvc.yaml. Heavy imports stand inside."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_r1.cli.options import (
    MethodName,
    ParamsFile,
    ProfileName,
    TrainingSeed,
    load_settings,
    params_file,
)

if TYPE_CHECKING:
    from vlm_r1.launch import LaunchPlan

Method = Annotated[MethodName, typer.Argument(help="The method.")]

stage_app = typer.Typer(help="Run one stage of dvc.yaml; `dvc repro` runs all that are stale.")


@stage_app.command("draw")
def stage_draw(params: ParamsFile = None, profile: ProfileName = None) -> None:
    """Draw the synthetic datasets: images and VLM-R1 records.

    Example: vlm-r1 stage draw
    """
    from vlm_r1.stages import draw

    draw.run(load_settings(params, profile), Path.cwd())


@stage_app.command("unpack")
def stage_unpack(
    source: Annotated[str, typer.Argument(help="A name that `vlm-r1 sources` lists.")],
) -> None:
    """Unpack data/raw/SOURCE.zip as data/unpacked/SOURCE.

    Example: vlm-r1 stage unpack refgta
    """
    from vlm_r1.stages import unpack

    unpack.run(Path.cwd(), source)


@stage_app.command("version")
def stage_version(
    dataset: Annotated[str, typer.Argument(help="A dataset of the params.")],
    params: ParamsFile = None,
    profile: ProfileName = None,
) -> None:
    """Write the digests of the files that a dataset consists of.

    Example: vlm-r1 stage version street_test
    """
    from vlm_r1.stages import version

    version.run(load_settings(params, profile), Path.cwd(), dataset)


@stage_app.command("prepare")
def stage_prepare(params: ParamsFile = None, profile: ProfileName = None) -> None:
    """Read and validate every dataset; write its records.parquet.

    Example: vlm-r1 stage prepare
    """
    from vlm_r1.stages import prepare

    prepare.run(load_settings(params, profile), Path.cwd())


@stage_app.command("base")
def stage_base(params: ParamsFile = None, profile: ProfileName = None) -> None:
    """Pretrain the tiny base model (20 minutes on two recent cores).

    Example: vlm-r1 stage base
    """
    from vlm_r1.stages import base

    base.run(load_settings(params, profile), Path.cwd())


@stage_app.command("sft")
def stage_sft(
    seed: TrainingSeed = None, params: ParamsFile = None, profile: ProfileName = None
) -> None:
    """Train the base by SFT, on as many processes as `launch` asks for.

    Example: vlm-r1 stage sft
    """
    _train("sft", seed, params, profile)


@stage_app.command("grpo")
def stage_grpo(
    seed: TrainingSeed = None, params: ParamsFile = None, profile: ProfileName = None
) -> None:
    """Train the base by GRPO, on as many processes as `launch` asks for.

    Example: vlm-r1 stage grpo
    """
    _train("grpo", seed, params, profile)


def _start(plan: "LaunchPlan", processes: int) -> None:
    """Run the stage's processes and leave with their exit code, or go on as one of them."""
    from vlm_r1 import launch as launching

    if launching.is_needed(processes):
        raise typer.Exit(launching.run_plan(plan))
    launching.enter(plan)


def _train(method: MethodName, seed: int | None, params: Path | None, profile: str | None) -> None:
    from vlm_r1 import launch as launching

    settings = load_settings(params, profile)
    plan = launching.training_plan(settings, method, params_file(params, profile), seed=seed)
    _start(plan, settings.launch.processes)
    if method == "sft":
        from vlm_r1.stages import sft

        sft.run(settings, Path.cwd(), seed)
    else:
        from vlm_r1.stages import grpo

        grpo.run(settings, Path.cwd(), seed)


@stage_app.command("search")
def stage_search(method: Method, params: ParamsFile = None, profile: ProfileName = None) -> None:
    """Write which learning rates `search` wants tried for one method; an empty plan if none.

    Example: vlm-r1 stage search sft
    """
    from vlm_r1.stages import search

    search.run(load_settings(params, profile), Path.cwd(), method)


@stage_app.command("candidate")
def stage_candidate(
    method: Method,
    learning_rate: Annotated[float, typer.Argument(help="One of search.METHOD.learning_rate.")],
    params: ParamsFile = None,
    profile: ProfileName = None,
) -> None:
    """Train one candidate of the search and score it on validation; its weights are not kept.

    Example: vlm-r1 stage candidate sft 1e-4
    """
    from vlm_r1 import launch as launching

    settings, file = load_settings(params, profile), params_file(params, profile)
    plan = launching.candidate_plan(settings, method, learning_rate, file)
    _start(plan, settings.launch.processes)
    from vlm_r1.stages import candidate

    candidate.run(settings, Path.cwd(), method, learning_rate)


@stage_app.command("evaluate")
def stage_evaluate(
    method: Method,
    seed: TrainingSeed = None,
    params: ParamsFile = None,
    profile: ProfileName = None,
) -> None:
    """Evaluate every checkpoint of one method on every dataset, on this node's processes.

    Example: vlm-r1 stage evaluate grpo
    """
    from vlm_r1 import launch as launching

    settings = load_settings(params, profile)
    plan = launching.evaluation_plan(settings, method, params_file(params, profile), seed)
    _start(plan, settings.launch.processes_per_node)
    from vlm_r1.stages import evaluate

    evaluate.run(settings, Path.cwd(), method, seed)


@stage_app.command("prompts")
def stage_prompts(params: ParamsFile = None, profile: ProfileName = None) -> None:
    """Ask the base and the best checkpoints with every prompt, if report.prompt_matrix is set.

    Example: vlm-r1 stage prompts
    """
    from vlm_r1.stages import prompts

    prompts.run(load_settings(params, profile), Path.cwd())


@stage_app.command("report")
def stage_report(
    params: ParamsFile = None,
    profile: ProfileName = None,
    allow_unfair: Annotated[
        bool,
        typer.Option(
            "--allow-unfair", help="Compare although the contracts differ; mark every page."
        ),
    ] = False,
) -> None:
    """Compare the methods and write reports/generalization.

    Example: vlm-r1 stage report
    """
    from vlm_r1.stages import report

    report.run_tracked(load_settings(params, profile), Path.cwd(), allow_unfair)


@stage_app.command("register")
def stage_register(params: ParamsFile = None, profile: ProfileName = None) -> None:
    """Register the checkpoint that is best on validation as champion.

    Example: vlm-r1 stage register
    """
    from vlm_r1.stages import register

    chosen = register.run(load_settings(params, profile), Path.cwd())
    typer.echo(chosen.model_dump_json(indent=1))
