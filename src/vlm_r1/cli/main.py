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
from vlm_r1.cli.data import data_app
from vlm_r1.cli.options import (
    PARAMS,
    AsJson,
    MethodName,
    ParamsFile,
    ProfileName,
    TrainingSeed,
    params_file,
)
from vlm_r1.cli.stages import stage_app
from vlm_r1.cli.training import training_app
from vlm_r1.config import load_params
from vlm_r1.errors import InputError

app = typer.Typer(
    help="A fair, repeatable comparison of GRPO and SFT for referring expression comprehension.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app)
app.add_typer(training_app)
app.add_typer(stage_app, name="stage", no_args_is_help=True)

PresetName = Annotated[
    Literal["standard", "feb2025-r1", "feb2025-sft", "mar2025"] | None,
    typer.Option("--preset", help="Read completions so; default: standard, or as a log extracted."),
]
CoordinateSpaceName = Annotated[
    Literal["original", "input", "thousand", "unit"] | None,
    typer.Option(
        "--coordinate-space",
        help="Coordinate space of the answers; default: the contract's, or original.",
    ),
]
Fields = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="ROLE=NAME", help="What a log calls a field; repeatable."),
]


def main() -> None:
    """Run the command line; a fault in the input is told in four lines, without a traceback."""
    environment.set_defaults()
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("vlm_r1").setLevel(logging.INFO)
    try:
        app()
    except InputError as error:
        typer.echo(str(error), err=True)
        sys.exit(error.exit_code)


@app.command()
def config(params: ParamsFile = PARAMS, profile: ProfileName = None) -> None:
    """Print every parameter, resolved and checked.

    Example: vlm-r1 config --profile miniature
    """
    resolved = load_params(params_file(params, profile)).model_dump(mode="json")
    typer.echo(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def score(
    logs: Annotated[list[Path], typer.Argument(help="Prediction logs, JSON or JSONL.")],
    as_json: AsJson = False,
    preset: PresetName = None,
    coordinate_space: CoordinateSpaceName = None,
    field: Fields = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put reversed corners in order, and count them.")
    ] = False,
) -> None:
    """Score prediction logs: accuracy at IoU > 0.5 with its interval, mean IoU, parse rate.

    Takes our result files, VLM-R1's logs, and JSON or JSONL of other tools.
    Where rows do not score what their log states, a note says why.

    Roles of --field: truth, completion (text or a box), box, question, image,
    id, image_size (height, width), width, height, input_size, correct;
    of the file: rows, accuracy. Boxes are xyxy. More in docs/scoring.md.

    Example: vlm-r1 score results/sft/street_test/step-0.json --json

    Example: vlm-r1 score other.jsonl --field truth=gt --field completion=pred
    """
    from vlm_r1.evaluation.prediction_logs import score_file
    from vlm_r1.evaluation.score_text import score_text, scores_json

    for path in logs:
        found = scores_json(
            score_file(path, field, preset, coordinate_space, repair).scores, str(path)
        )
        typer.echo(json.dumps(found) if as_json else score_text(found))


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A prediction log, JSON or JSONL.")],
    b: Annotated[Path, typer.Argument(help="Another log of the same records.")],
    as_json: AsJson = False,
    flips: Annotated[
        int | None, typer.Option(min=0, help="Rows to list that only one got right; default 10.")
    ] = None,
    common: Annotated[
        bool, typer.Option("--common", help="Compare the rows that both hold; tells the rest.")
    ] = False,
    allow_unfair: Annotated[
        bool, typer.Option("--allow-unfair", help="Go on when contracts differ, and say so.")
    ] = False,
    preset: PresetName = None,
    coordinate_space: CoordinateSpaceName = None,
    field: Fields = None,
) -> None:
    """Compare two logs row by row: B - A in percent points, McNemar's p, the flips.

    Rows pair by record id, else by question and true box.
    --preset, --coordinate-space and --field read both logs as `score` does.

    Example: vlm-r1 compare sft_500.json r1_500.json --flips 5
    """
    from vlm_r1.evaluation.comparison import FLIPS_SHOWN, compare_logs, comparison_text
    from vlm_r1.evaluation.prediction_logs import score_file

    read = [score_file(path, field, preset, coordinate_space) for path in (a, b)]
    found = compare_logs(*read, common, allow_unfair)
    if as_json:
        typer.echo(json.dumps(found.to_json_dict(flips)))
    else:
        shown = FLIPS_SHOWN if flips is None else flips
        typer.echo(comparison_text(found, str(a), str(b), shown))


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    phrase: Annotated[str, typer.Argument(help='What to find, as "the red circle".')],
    model: Annotated[
        str, typer.Option(help="A checkpoint folder, a hub name, or models:/NAME@ALIAS.")
    ],
    template: Annotated[
        Literal["plain", "r1", "json"] | None,
        typer.Option(help="Prompt; default: the one the checkpoint was trained with, else plain."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the image with the box here.")] = None,
    params: ParamsFile = PARAMS,
) -> None:
    """Find one thing in an image; prints its box (xyxy, original pixels) as JSON.

    Example: vlm-r1 predict --model models/base image.png "red circle" --out found.png
    """
    from vlm_r1.inference.predict import predict_box

    checkpoint: str | Path = model
    if model.startswith("models:/"):
        from vlm_r1 import tracking

        checkpoint = tracking.resolve(Path.cwd(), model)
    answer = predict_box(load_params(params), checkpoint, image, phrase, template, out)
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


@app.command()
def evaluate(
    method: MethodName,
    watch: Annotated[
        bool, typer.Option("--watch", help="Wait for checkpoints that training has yet to write.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda:1, ...; default: an accelerator if there is one.")
    ] = None,
    patience_s: Annotated[
        float, typer.Option(help="With --watch: seconds to wait for each next checkpoint.")
    ] = 86_400,
    seed: TrainingSeed = None,
    params: ParamsFile = PARAMS,
) -> None:
    """Answer a method's checkpoints ahead of the stage `evaluate`, which then only writes results.

    Fills .cache/completions (docs/evaluation.md), and shows each checkpoint's accuracy.

    Example: vlm-r1 evaluate --watch grpo --device cuda:1
    """
    from vlm_r1.inference import watch as ahead

    patience_s = patience_s if watch else 0
    ahead.run(load_params(params), Path.cwd(), method, device, patience_s, seed=seed)


@app.command()
def track(params: ParamsFile = PARAMS) -> None:
    """Bring MLflow up to what the files say: trainings, evaluations, the report.

    For a new database, or after a server was away; what is there already is not recorded twice.

    Example: MLFLOW_TRACKING_URI=http://127.0.0.1:5000 vlm-r1 track
    """
    from vlm_r1 import tracking

    tracking.rebuild(Path.cwd(), load_params(params))


if __name__ == "__main__":
    main()
