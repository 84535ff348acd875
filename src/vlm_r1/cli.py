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
from vlm_r1.cli_options import (
    PARAMS,
    AsJson,
    MethodName,
    ParamsFile,
    ProfileName,
    TrainingSeed,
    params_file,
)
from vlm_r1.cli_training import training_app
from vlm_r1.config import Format, Validation, load_params
from vlm_r1.errors import InputError
from vlm_r1.processes import end_with_parent

app = typer.Typer(
    help="A fair, repeatable comparison of GRPO and SFT for referring expression comprehension.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
stage_app = typer.Typer(help="Run one stage of dvc.yaml (DVC calls these; `dvc repro` runs all).")
app.add_typer(training_app)
app.add_typer(stage_app, name="stage", no_args_is_help=True)

PresetName = Annotated[
    Literal["standard", "feb2025-r1", "feb2025-sft", "mar2025"] | None,
    typer.Option("--preset", help="Read completions so; default: standard, or as a log extracted."),
]
FrameName = Annotated[
    Literal["original", "input", "thousand", "unit"] | None,
    typer.Option("--frame", help="Frame of the answers; default: the contract's, or original."),
]
Fields = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="ROLE=NAME", help="What a log calls a field; repeatable."),
]
FormatName = Annotated[
    Format | None, typer.Option("--from", help="The file's format; default: told by its suffix.")
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
def sources(as_json: AsJson = False) -> None:
    """List every archive that VLM-R1 uses: address, size, SHA-256, licence.

    Example: vlm-r1 sources --json
    """
    from vlm_r1.data.sources import SOURCES, sources_text

    if as_json:
        for source in SOURCES:
            typer.echo(json.dumps(source.model_dump() | {"file": source.file, "url": source.url()}))
    else:
        typer.echo(sources_text())


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Names that `vlm-r1 sources` lists.")],
    mirror: Annotated[
        str | None,
        typer.Option(envvar="VLM_R1_MIRROR", help="Base address to take the files from instead."),
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, help="Further tries after a temporary fault; each is logged.")
    ] = 0,
    timeout_s: Annotated[float, typer.Option(help="Seconds without an answer.")] = 30.0,
    unpacked: Annotated[
        bool, typer.Option("--unpack", help="Also unpack them as data/unpacked/NAME.")
    ] = False,
) -> None:
    """Download archives into data/raw, verify and track them (data/raw/NAME.zip.dvc).

    Goes on where it was, after a fault or a kill. Exit code 75: a later try may succeed.

    Example: vlm-r1 fetch rec_jsons_processed refgta --retries 3
    """
    from vlm_r1.data.fetching import fetch_with_retries
    from vlm_r1.data.sources import source_named
    from vlm_r1.stages import unpack

    for source in [source_named(name) for name in names]:
        typer.echo(fetch_with_retries(source, Path.cwd(), mirror, retries, timeout_s))
        if unpacked and source.is_archive:
            unpack.run(Path.cwd(), source.name)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A dataset's file.")],
    to: Annotated[Literal["records", "vlm-r1"], typer.Option(help="What to write.")],
    out: Annotated[Path, typer.Option(help="The file; vlm-r1 as *.jsonl has a row a line.")],
    source_format: FormatName = None,
    image_root: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of the pictures, for their sizes."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The one of its splits to take, or a name for the rows.")
    ] = None,
) -> None:
    """Convert a dataset's own file into records.parquet or VLM-R1's JSON; whole or not at all.

    Formats are shown in docs/data.md, with a row of each.

    Example: vlm-r1 convert --from refer "refs(unc).p" --to vlm-r1 --out val.json --split val
    """
    from vlm_r1.data.convert import convert_file

    count = convert_file(source, source_format, to, out, image_root, split)
    typer.echo(f"{count} records: {out}")


@app.command()
def validate(
    records: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A dataset's file.")],
    out: Annotated[Path, typer.Option(help="Folder for validation.json and validation.html.")],
    image_root: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder of the pictures.")
    ] = None,
    metadata_only: Annotated[
        bool, typer.Option("--metadata-only", help="Open no picture; compare them by id.")
    ] = False,
    against: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="Records that must share no picture."),
    ] = None,
    source_format: FormatName = None,
    params: Annotated[
        Path | None, typer.Option(help="Take the section `validation` from here.")
    ] = None,
) -> None:
    """Check a dataset before anything is trained on it: 0 it passes, 1 it fails, 2 wrong usage.

    Example: vlm-r1 validate my.csv --image-root photos --out checked --against train.json
    """
    from vlm_r1.data.check_file import check_file

    if not metadata_only and (image_root is None or not image_root.is_dir()):
        raise typer.BadParameter(
            "need the folder of the pictures, or --metadata-only", param_hint="--image-root"
        )
    bounds = Validation() if params is None else load_params(params).validation
    told = check_file(
        records,
        source_format,
        image_root or Path(),
        out,
        bounds=bounds,
        against=against or [],
        metadata_only=metadata_only,
    )
    typer.echo("\n".join(told.lines))
    raise typer.Exit(0 if told.passed else 1)


@app.command()
def score(
    logs: Annotated[list[Path], typer.Argument(help="Prediction logs, JSON or JSONL.")],
    as_json: AsJson = False,
    preset: PresetName = None,
    frame: FrameName = None,
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
    from vlm_r1.evaluation.logs import score_file
    from vlm_r1.evaluation.scores import score_text

    for path in logs:
        found = score_file(path, field, preset, frame, repair).scores.to_json_dict(str(path))
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
    frame: FrameName = None,
    field: Fields = None,
) -> None:
    """Compare two logs row by row: B - A in percent points, McNemar's p, the flips.

    Rows pair by record id, else by question and true box.
    --preset, --frame and --field read both logs as `score` does.

    Example: vlm-r1 compare sft_500.json r1_500.json --flips 5
    """
    from vlm_r1.evaluation.comparison import FLIPS_SHOWN, compare_logs, comparison_text
    from vlm_r1.evaluation.logs import score_file

    read = [score_file(path, field, preset, frame) for path in (a, b)]
    found = compare_logs(*read, common, allow_unfair)
    if as_json:
        typer.echo(json.dumps(found.to_json_dict(flips)))
    else:
        shown = FLIPS_SHOWN if flips is None else flips
        typer.echo(comparison_text(found, str(a), str(b), shown))


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
    from vlm_r1.stages import watch as ahead

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


@stage_app.command("draw")
def stage_draw(params: ParamsFile = PARAMS) -> None:
    """Draw the worlds: pictures and VLM-R1 records."""
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


@stage_app.command("train")
def stage_train(method: MethodName, seed: TrainingSeed = None, params: ParamsFile = PARAMS) -> None:
    """Train one method from the base, on as many processes as `launch` asks for."""
    from vlm_r1.training import launch as launching

    settings = load_params(params)
    if launching.is_needed(settings.launch.processes):
        plan = launching.training_plan(settings, method, params, seed=seed)
        raise typer.Exit(launching.run_plan(plan))
    if launching.is_worker():
        end_with_parent()
    from vlm_r1.stages import train

    train.run(settings, Path.cwd(), method, seed)


@stage_app.command("evaluate")
def stage_evaluate(
    method: MethodName, seed: TrainingSeed = None, params: ParamsFile = PARAMS
) -> None:
    """Evaluate every checkpoint of one method on every dataset, on this node's processes."""
    from vlm_r1.training import launch as launching

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
    from vlm_r1 import tracking
    from vlm_r1.stages import report as report_stage
    from vlm_r1.stages.terms import contract_of

    settings, root = load_params(params), Path.cwd()
    contract = contract_of(settings, root)
    run_id = tracking.later(tracking.pipeline_run_id, root, settings, contract)
    folder = report_stage.run(settings, root, allow_unfair, run_id)
    tracking.later(tracking.track_report, root, settings, contract, folder)


@stage_app.command("register")
def stage_register(params: ParamsFile = PARAMS) -> None:
    """Register the checkpoint that is best on validation as champion."""
    from vlm_r1.stages import register

    chosen = register.run(load_params(params), Path.cwd())
    typer.echo(chosen.model_dump_json(indent=1))


if __name__ == "__main__":
    main()
