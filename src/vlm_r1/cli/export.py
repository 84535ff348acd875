"""`vlm-r1 export ...`: our evaluation as tasks of other evaluators. Heavy imports stand inside."""

from pathlib import Path
from typing import Annotated

import typer

from vlm_r1.cli.options import ParamsFile, ProfileName, load_settings

export_app = typer.Typer(
    help="Write our evaluation as tasks of another evaluator.\n\n"
    "Example: vlm-r1 export lmms-eval --out tasks"
)


@export_app.command("lmms-eval")
def export_lmms_eval(
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder to write, new or of an earlier export.")
    ],
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="A prepared dataset; repeatable. Default: all that are evaluated."),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(help="plain, r1 or json; repeatable. Default: the prompts of both methods."),
    ] = None,
    params: ParamsFile = None,
    profile: ProfileName = None,
) -> None:
    """Write tasks that lmms-eval runs with our prompts, records, parser and scores.

    Prints the command that runs them. See docs/lmms-eval.md.

    Example: vlm-r1 export lmms-eval --dataset street_test --template plain --out tasks
    """
    from vlm_r1.export.lmms_eval import export_tasks, run_arguments

    settings = load_settings(params, profile)
    prompts = settings.task.prompts
    templates = template or list(dict.fromkeys([prompts.sft, prompts.grpo]))
    datasets = dataset or settings.evaluated_datasets
    found = export_tasks(settings, Path.cwd(), datasets, templates, out)
    device = "cpu" if settings.launch.device == "cpu" else "cuda"
    arguments = run_arguments(found, settings, "CHECKPOINT", "LOGS", device)
    typer.echo(f"python -m lmms_eval {' '.join(arguments)}")
