"""`vlm-r1`: the command line. Stages for dvc.yaml, tools for whoever has a checkpoint or a log.

Heavy imports stand inside the commands, so that `--help` and `config` answer at once.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
import yaml

from vlm_r1 import environment
from vlm_r1.config import load_params
from vlm_r1.errors import InputError

app = typer.Typer(
    help="A fair, repeatable comparison of GRPO and SFT for referring expression comprehension.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
stage_app = typer.Typer(help="Run one stage of dvc.yaml (DVC calls these; `dvc repro` runs all).")
app.add_typer(stage_app, name="stage", no_args_is_help=True)

ParamsFile = Annotated[Path, typer.Option("--params", help="The params file.")]
MethodName = Literal["sft", "grpo"]
PARAMS = Path("params.yaml")


def main() -> None:
    """Run the command line; a fault in the input is told in four lines, without a traceback."""
    environment.set_defaults()
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("vlm_r1").setLevel(logging.INFO)
    try:
        app()
    except InputError as error:
        typer.echo(str(error), err=True)
        sys.exit(1)


@app.command()
def config(params: ParamsFile = PARAMS) -> None:
    """Print every parameter, resolved and checked.

    Example: vlm-r1 config --params profiles/miniature.yaml
    """
    resolved = load_params(params).model_dump(mode="json")
    typer.echo(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def score(
    logs: Annotated[list[Path], typer.Argument(help="Result files or VLM-R1 prediction logs.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Score prediction logs: accuracy at IoU > 0.5 with its interval, mean IoU, parse rate.

    Takes our results/<method>/<dataset>/step-<n>.json and any log in VLM-R1's layout.

    Example: vlm-r1 score results/sft/street_test/step-0.json --json
    """
    from vlm_r1.evaluation.scoring import score_results
    from vlm_r1.results import read_results

    for log in logs:
        scores = score_results(read_results(log)).to_json_dict(str(log))
        typer.echo(json.dumps(scores) if as_json else _score_line(scores))


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="A picture file.")],
    phrase: Annotated[str, typer.Argument(help='What to find, as "the red circle".')],
    model: Annotated[
        str, typer.Option(help="A checkpoint folder, a hub name, or models:/NAME@ALIAS.")
    ],
    template: Annotated[
        Literal["plain", "r1", "json"] | None,
        typer.Option(help="Prompt; default: the one the checkpoint was trained with, else plain."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the picture with the box here.")] = None,
    params: ParamsFile = PARAMS,
) -> None:
    """Find one thing in a picture; prints its box (xyxy, original pixels) as JSON.

    Example: vlm-r1 predict --model models/base picture.png "red circle" --out found.png
    """
    from vlm_r1.prediction import predict_box

    answer = predict_box(load_params(params), Path.cwd(), model, image, phrase, template, out)
    typer.echo(json.dumps(answer))


@app.command()
def report(
    from_logs: Annotated[Path, typer.Option(help="Folder of VLM-R1 prediction logs.")],
    out: Annotated[Path, typer.Option(help="Folder to write report.{json,md,html} into.")],
    id_name: Annotated[str | None, typer.Option("--id", help="In-domain dataset's name.")] = None,
    ood_name: Annotated[str | None, typer.Option("--ood", help="Out-of-domain one's name.")] = None,
) -> None:
    """Make the report from prediction logs alone; method, dataset and step come from file names.

    Example: vlm-r1 report --from-logs logs/ --id refcoco_val --ood refgta_subsample --out report/
    """
    from vlm_r1.report.from_logs import report_from_logs

    made = report_from_logs(from_logs, out, id_name, ood_name)
    typer.echo(f"{made.verdict.text}\n{out / 'report.html'}")


@stage_app.command("draw")
def stage_draw(params: ParamsFile = PARAMS) -> None:
    """Draw the worlds: pictures and VLM-R1 records."""
    from vlm_r1.stages import draw

    draw.run(load_params(params), Path.cwd())


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


@stage_app.command("train")
def stage_train(method: MethodName, params: ParamsFile = PARAMS) -> None:
    """Train one method from the base."""
    from vlm_r1.stages import train

    train.run(load_params(params), Path.cwd(), method)


@stage_app.command("evaluate")
def stage_evaluate(method: MethodName, params: ParamsFile = PARAMS) -> None:
    """Evaluate every checkpoint of one method on every dataset."""
    from vlm_r1.stages import evaluate

    evaluate.run(load_params(params), Path.cwd(), method)


@stage_app.command("report")
def stage_report(
    params: ParamsFile = PARAMS,
    allow_unfair: Annotated[
        bool, typer.Option(help="Go on when contracts differ, and stamp every page.")
    ] = False,
) -> None:
    """Compare the methods and write reports/generalization."""
    from vlm_r1 import tracking
    from vlm_r1.stages import report as report_stage
    from vlm_r1.stages.terms import contract_of

    settings, root = load_params(params), Path.cwd()
    contract = contract_of(settings, root)
    run_id = tracking.pipeline_run_id(root, settings, contract)
    folder = report_stage.run(settings, root, allow_unfair, run_id)
    tracking.track_report(root, settings, contract, folder)


@stage_app.command("register")
def stage_register(params: ParamsFile = PARAMS) -> None:
    """Register the checkpoint that is best on validation as champion."""
    from vlm_r1.stages import register

    chosen = register.run(load_params(params), Path.cwd())
    typer.echo(chosen.model_dump_json(indent=1))


def _score_line(scores: dict) -> str:
    interval = (
        "no interval"
        if scores["ci_low"] is None
        else f"{scores['ci_low']:.2f} to {scores['ci_high']:.2f}"
    )
    line = (
        f"{scores['file']}: n {scores['n']}, accuracy {scores['accuracy']:.2f} % ({interval}), "
        f"mean IoU {scores['mean_iou']:.3f}, parse rate {100 * scores['parse_rate']:.1f} %"
    )
    return f"{line}\n  note: {scores['note']}" if scores["note"] else line


if __name__ == "__main__":
    main()
