"""`vlm-r1 report-logs | track`. Heavy packages are imported inside."""

from pathlib import Path
from typing import Annotated

import typer

from vlm_r1.cli.options import REPORT, ParamsFile, ProfileName, load_settings

report_app = typer.Typer()


@report_app.command(rich_help_panel=REPORT)
def report_logs(
    logs: Annotated[
        Path,
        typer.Argument(exists=True, file_okay=False, help="Folder of VLM-R1 prediction logs."),
    ],
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for report.json, report.md, report.html.")
    ],
    id_name: Annotated[str | None, typer.Option("--id", help="In-domain dataset's name.")] = None,
    ood_name: Annotated[
        str | None, typer.Option("--ood", help="Out-of-domain dataset's name.")
    ] = None,
) -> None:
    """Write the report from prediction logs alone, without a trained experiment.

    Method, dataset and step come from the file names, as VLM-R1 writes them.

    Example: vlm-r1 report-logs logs --id refcoco_val --ood refgta_subsample --out report
    """
    from vlm_r1.report.from_logs import report_from_logs

    made = report_from_logs(logs, out, id_name, ood_name)
    typer.echo(f"{made.verdict.text}\n{out / 'report.html'}")


@report_app.command(rich_help_panel=REPORT)
def track(params: ParamsFile = None, profile: ProfileName = None) -> None:
    """Record in MLflow what the files hold: trainings, evaluations, the report.

    For a new database, or after a server was away. Nothing is recorded twice.

    Example: MLFLOW_TRACKING_URI=http://127.0.0.1:5000 vlm-r1 track
    """
    from vlm_r1 import tracking

    tracking.rebuild(Path.cwd(), load_settings(params, profile))
