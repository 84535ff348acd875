"""`vlm-r1 launch | doctor | plan`: before and around a training. Heavy imports stand inside."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vlm_r1.cli.options import (
    PARAMS,
    AsJson,
    MethodName,
    ParamsFile,
    ProfileName,
    TrainingSeed,
    params_file,
)
from vlm_r1.config import load_params
from vlm_r1.paths import run_dir

training_app = typer.Typer()


@training_app.command()
def launch(
    method: Annotated[MethodName, typer.Option(help="What to train.")],
    profile: ProfileName = None,
    params: ParamsFile = PARAMS,
    seed: TrainingSeed = None,
    node_rank: Annotated[int, typer.Option(min=0, help="This node's number, from 0.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train on the processes that `launch` in the params asks for, outside of DVC.

    --dry-run shows command, environment, DeepSpeed's configuration and every trainer argument
    and starts nothing; --json gives them as one object. `dvc repro` starts the same command.

    Example: vlm-r1 launch --profile vlm-r1-mar2025 --method grpo --dry-run
    """
    from vlm_r1 import launch as launching

    file = params_file(params, profile)
    settings = load_params(file)
    plan = launching.training_plan(settings, method, file, node_rank, seed)
    if not dry_run:
        raise typer.Exit(launching.run_plan(plan))
    from vlm_r1.config.deepspeed import deepspeed_config
    from vlm_r1.training.arguments import resolved_arguments

    shown = {
        "command": plan.command,
        "environment": plan.environment,
        "deepspeed": deepspeed_config(settings.train.deepspeed),
        "trainer_arguments": resolved_arguments(
            settings.with_seed(seed), method, run_dir(settings.run_name(method, seed))
        ),
    }
    typer.echo(json.dumps(shown) if as_json else launching.plan_text(shown))


@training_app.command()
def doctor(
    params: ParamsFile = PARAMS, profile: ProfileName = None, as_json: AsJson = False
) -> None:
    """Check machine, packages and model for what is known to train wrongly; tells what to do.

    A real sample goes through processor and model. Exit code 1 if anything is refused.

    Example: vlm-r1 doctor --profile lora-1gpu
    """
    from vlm_r1.preflight import doctor as surgery

    found = surgery.diagnose(load_params(params_file(params, profile)), Path.cwd())
    for finding in found:
        row = {"check": finding.check, "ok": finding.fault is None, "seen": finding.seen}
        told = row | ({"fault": str(finding.fault)} if finding.fault else {})
        typer.echo(json.dumps(told) if as_json else surgery.result_text(finding))
    if any(finding.fault for finding in found):
        raise typer.Exit(1)


@training_app.command()
def plan(
    profile: ProfileName = None,
    params: ParamsFile = PARAMS,
    gpus: Annotated[int | None, typer.Option(min=1, help="Default: launch in the params.")] = None,
    gpu_memory_gib: Annotated[float, typer.Option(min=1, help="Of one GPU.")] = 80.0,
    image: Annotated[str, typer.Option(metavar="WxH", help="A typical image.")] = "640x480",
    as_json: AsJson = False,
) -> None:
    """Estimate memory a GPU and FLOPs of both methods from the model's config, without weights.

    Says whether it fits and what to change first. docs/training.md says what is modelled.

    Example: vlm-r1 plan --profile vlm-r1-mar2025 --gpus 8 --gpu-memory-gib 80
    """
    from vlm_r1.preflight import plan as planning

    settings = load_params(params_file(params, profile))
    if gpus is not None:
        update = {"nodes": 1, "processes_per_node": gpus}
        settings = settings.model_copy(update={"launch": settings.launch.model_copy(update=update)})
    width, _, height = image.partition("x")
    found = planning.plan_dict(settings, Path.cwd(), gpu_memory_gib, (int(width), int(height)))
    typer.echo(json.dumps(found) if as_json else planning.plan_text(found))
