"""`vlm-r1 launch | doctor | plan`: before and around a training. Heavy imports stand inside."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from vlm_r1.cli.options import (
    TRAINING,
    TYPICAL_IMAGE,
    AsJson,
    ImageSize,
    MethodName,
    ParamsFile,
    ProfileName,
    TrainingSeed,
    load_settings,
    params_file,
    parse_image_size,
)
from vlm_r1.config import Params, load_params
from vlm_r1.launch import LaunchPlan
from vlm_r1.paths import run_dir

training_app = typer.Typer()


@training_app.command(rich_help_panel=TRAINING)
def launch(
    method: Annotated[MethodName, typer.Option(help="The method to train.")],
    seed: TrainingSeed = None,
    node_rank: Annotated[int, typer.Option(min=0, help="This node's number, from 0.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run; start nothing.")
    ] = False,
    as_json: AsJson = False,
    params: ParamsFile = None,
    profile: ProfileName = None,
) -> None:
    """Train one method outside of DVC, on the processes that `launch` in the params asks for.

    --dry-run prints the command, its environment, DeepSpeed's configuration and every trainer
    argument; --json prints them as one object. `dvc repro` runs the same command.

    Example: vlm-r1 launch --profile vlm-r1-mar2025 --method grpo --dry-run
    """
    from vlm_r1 import launch as launching

    file = params_file(params, profile)
    settings = load_params(file)
    of_seed = settings.with_seed(seed)  # refuses an unknown seed before any process is started
    plan = launching.training_plan(settings, method, file, node_rank, seed)
    if not dry_run:
        raise typer.Exit(launching.run_plan(plan))
    shown = _dry_run(of_seed, method, settings.run_name(method, seed), plan)
    typer.echo(json.dumps(shown) if as_json else launching.plan_text(shown))


def _dry_run(settings: Params, method: MethodName, run: str, plan: LaunchPlan) -> dict[str, Any]:
    from vlm_r1.config.deepspeed import deepspeed_config
    from vlm_r1.training.dry_run import resolved_arguments

    return {
        "command": plan.command,
        "environment": plan.environment,
        "deepspeed": deepspeed_config(settings.train.deepspeed),
        "trainer_arguments": resolved_arguments(settings, method, run_dir(run)),
    }


@training_app.command(rich_help_panel=TRAINING)
def doctor(as_json: AsJson = False, params: ParamsFile = None, profile: ProfileName = None) -> None:
    """Check the machine, the packages and the model for faults known to spoil a training.

    Sends a real sample through processor and model. Exit code 1 if a check fails.

    Example: vlm-r1 doctor --profile lora-1gpu
    """
    from vlm_r1.launch import device_environment

    settings = load_settings(params, profile)
    os.environ.update(device_environment(settings.launch))  # as a training sets it; before torch
    from vlm_r1.preflight import doctor as checking

    found = checking.diagnose(settings, Path.cwd())
    for finding in found:
        row = {"check": finding.check, "ok": finding.fault is None, "seen": finding.seen}
        if finding.fault:
            row["fault"] = str(finding.fault)
        typer.echo(json.dumps(row) if as_json else checking.result_text(finding))
    if any(finding.fault for finding in found):
        raise typer.Exit(1)


@training_app.command(rich_help_panel=TRAINING)
def plan(
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Number of GPUs; default: `launch` in the params.")
    ] = None,
    gpu_memory_gib: Annotated[float, typer.Option(min=1, help="Memory of one GPU, GiB.")] = 80.0,
    image: Annotated[
        ImageSize,
        typer.Option(
            metavar="WxH",
            parser=parse_image_size,
            help="Size of a typical image, pixels.",
        ),
    ] = TYPICAL_IMAGE,
    as_json: AsJson = False,
    params: ParamsFile = None,
    profile: ProfileName = None,
) -> None:
    """Estimate both methods' memory per GPU and FLOPs from the model's config, without weights.

    Says whether the training fits and what to change first. See docs/training.md.

    Example: vlm-r1 plan --profile vlm-r1-mar2025 --gpus 8 --gpu-memory-gib 80
    """
    from vlm_r1.preflight import plan as planning

    settings = load_settings(params, profile)
    if gpus is not None:
        update = {"nodes": 1, "processes_per_node": gpus}
        settings = settings.model_copy(update={"launch": settings.launch.model_copy(update=update)})
    found = planning.plan_dict(settings, Path.cwd(), gpu_memory_gib, (image.width, image.height))
    typer.echo(json.dumps(found) if as_json else planning.plan_text(found))
