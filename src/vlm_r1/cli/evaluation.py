"""`vlm-r1 score | compare | predict | prefetch`. Heavy packages are imported inside."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from vlm_r1.cli.options import (
    EVALUATION,
    AsJson,
    MethodName,
    ParamsFile,
    ProfileName,
    TrainingSeed,
    load_settings,
)

evaluation_app = typer.Typer()

PresetName = Annotated[
    Literal["standard", "feb2025-r1", "feb2025-sft", "mar2025"] | None,
    typer.Option(
        "--preset",
        help="Parser for the completions; default: the answers the log has extracted, "
        "else standard.",
    ),
]
CoordinateSpaceName = Annotated[
    Literal["original", "input", "thousand", "unit"] | None,
    typer.Option(
        "--coordinate-space",
        help="Coordinate space of the predicted boxes; default: that of the log's contract, "
        "else original.",
    ),
]
Fields = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="ROLE=NAME", help="Name of a field in the log; repeatable."),
]
BoxFormat = Literal["xyxy", "xywh"]
BoxFormatName = Annotated[
    BoxFormat,
    typer.Option(
        "--box-format",
        help="How true boxes and answers are written: two corners, or COCO's corner and size.",
    ),
]
AnswerFormatName = Annotated[
    BoxFormat | None,
    typer.Option("--answer-box-format", help="Of the answers alone; default: as --box-format."),
]


@evaluation_app.command(rich_help_panel=EVALUATION)
def score(
    logs: Annotated[list[Path], typer.Argument(help="Prediction logs, JSON or JSONL.")],
    as_json: AsJson = False,
    preset: PresetName = None,
    coordinate_space: CoordinateSpaceName = None,
    field: Fields = None,
    box_format: BoxFormatName = "xyxy",
    answer_box_format: AnswerFormatName = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Reorder the corners of reversed boxes, and count them."),
    ] = False,
) -> None:
    """Score prediction logs: accuracy at IoU > 0.5 with its interval, mean IoU, parse rate.

    Reads this project's result files, VLM-R1's logs, lmms-eval's sample logs, and JSON or JSONL
    of other tools. An answer without a box is wrong. If the score differs from the accuracy
    that a log states, a note says why.

    Roles of --field: truth, completion (text or a box), box, question, image,
    id, image_size (height, width), width, height, input_size, correct;
    for the whole file: rows, accuracy. A name reaches inside: doc.bbox, or doc/bbox.
    See docs/scoring.md.

    Example: vlm-r1 score results/sft/street_test/step-0.json --json

    Example: vlm-r1 score other.jsonl --field truth=gt --field completion=pred --box-format xywh
    """
    from vlm_r1.evaluation.box_formats import BoxFormats
    from vlm_r1.evaluation.prediction_logs import score_file
    from vlm_r1.evaluation.score_text import score_text, scores_json

    formats = BoxFormats(box_format, answer_box_format or box_format)
    for path in logs:
        log = score_file(path, field, preset, coordinate_space, repair, formats)
        found = scores_json(log.scores, str(path))
        typer.echo(json.dumps(found) if as_json else score_text(found))


@evaluation_app.command(rich_help_panel=EVALUATION)
def compare(
    a: Annotated[Path, typer.Argument(help="A prediction log, JSON or JSONL.")],
    b: Annotated[Path, typer.Argument(help="Another log of the same records.")],
    as_json: AsJson = False,
    flips: Annotated[
        int | None,
        typer.Option(
            min=0, help="How many rows to list that only one log has right; default: 10 in text."
        ),
    ] = None,
    common: Annotated[
        bool, typer.Option("--common", help="Compare only rows in both logs; count the others.")
    ] = False,
    allow_unfair: Annotated[
        bool, typer.Option("--allow-unfair", help="Compare although the contracts differ.")
    ] = False,
    preset: PresetName = None,
    coordinate_space: CoordinateSpaceName = None,
    field: Fields = None,
    box_format: BoxFormatName = "xyxy",
    answer_box_format: AnswerFormatName = None,
) -> None:
    """Compare two logs row by row: B - A in percentage points, McNemar's p, the flips.

    Rows are paired by record id, or by question and true box.
    --preset, --coordinate-space, --field and the box formats apply to both logs, as in
    `vlm-r1 score`.

    Example: vlm-r1 compare sft_500.json r1_500.json --flips 5
    """
    from vlm_r1.evaluation.box_formats import BoxFormats
    from vlm_r1.evaluation.comparison import FLIPS_SHOWN, compare_logs, comparison_text
    from vlm_r1.evaluation.prediction_logs import score_file

    formats = BoxFormats(box_format, answer_box_format or box_format)
    log_a, log_b = (
        score_file(path, field, preset, coordinate_space, box_formats=formats) for path in (a, b)
    )
    found = compare_logs(log_a, log_b, common, allow_unfair)
    if as_json:
        typer.echo(json.dumps(found.to_json_dict(flips)))
    else:
        shown = FLIPS_SHOWN if flips is None else flips
        typer.echo(comparison_text(found, str(a), str(b), shown))


@evaluation_app.command(rich_help_panel=EVALUATION)
def predict(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    expression: Annotated[str, typer.Argument(help='What to find, e.g. "the red circle".')],
    model: Annotated[
        str, typer.Option(help="A checkpoint folder, models:/NAME@ALIAS, or task.base_model.")
    ],
    template: Annotated[
        Literal["plain", "r1", "json"] | None,
        typer.Option(help="Prompt; default: the one the checkpoint was trained with, else plain."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write the image with the predicted box to this file."),
    ] = None,
    params: ParamsFile = None,
    profile: ProfileName = None,
) -> None:
    """Find one object in an image; print its box (xyxy, pixels of the original) as JSON.

    Example: vlm-r1 predict --model models/base image.png "red circle" --out found.png
    """
    from vlm_r1.inference.predict import predict_box

    settings = load_settings(params, profile)
    checkpoint: str | Path = model
    if model.startswith("models:/"):
        from vlm_r1 import tracking

        checkpoint = tracking.resolve(Path.cwd(), model)
    typer.echo(json.dumps(predict_box(settings, checkpoint, image, expression, template, out)))


@evaluation_app.command(rich_help_panel=EVALUATION)
def prefetch(
    method: Annotated[MethodName, typer.Argument(help="The method to evaluate.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Wait for checkpoints that training has yet to write.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda:1, ...; default: a GPU if there is one.")
    ] = None,
    patience_s: Annotated[
        float,
        typer.Option(min=0, help="With --watch: seconds to wait for each next checkpoint."),
    ] = 86_400,
    seed: TrainingSeed = None,
    params: ParamsFile = None,
    profile: ProfileName = None,
) -> None:
    """Generate a method's completions before the stage `evaluate`, e.g. while it still trains.

    Completions go into .cache/completions and each checkpoint's accuracy is shown. The stage
    reuses them and writes the result files. See docs/evaluation.md.

    Example: vlm-r1 prefetch grpo --watch --device cuda:1
    """
    settings = load_settings(params, profile)
    if device is not None:
        _require_device(device)
    from vlm_r1.inference import watch as watching

    patience_s = patience_s if watch else 0
    watching.run(settings, Path.cwd(), method, device, patience_s, seed=seed)


def _require_device(name: str) -> None:
    """Refuse a device that torch does not know or that this machine lacks."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the latter where torch has no CUDA
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(f"{name!r}: {reason}", param_hint="--device") from None
