"""`vlm-r1 sources | fetch | convert | validate`: a dataset's files. Heavy imports stand inside."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from vlm_r1.cli.options import DATA, AsJson, ParamsFile, ProfileName, load_settings
from vlm_r1.config import Format, Params, standalone

MODEL = "model"  # what `vlm-r1 fetch` calls the base model

data_app = typer.Typer()

DatasetFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A dataset file.")]
FormatName = Annotated[
    Format | None, typer.Option("--from", help="The file's format; default: from its suffix.")
]


@data_app.command(rich_help_panel=DATA)
def sources(as_json: AsJson = False) -> None:
    """List every archive that VLM-R1 uses: address, size, SHA-256, license.

    Example: vlm-r1 sources --json
    """
    from vlm_r1.data.download.catalog import ARCHIVES, catalog_text

    if as_json:
        for archive in ARCHIVES:
            address = {"file": archive.file, "url": archive.url()}
            typer.echo(json.dumps(archive.model_dump() | address))
    else:
        typer.echo(catalog_text())


@data_app.command(rich_help_panel=DATA)
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(help="Names that `vlm-r1 sources` lists, or `model`: task.base_model."),
    ],
    mirror: Annotated[
        str | None,
        typer.Option(envvar="VLM_R1_MIRROR", help="Base address to download from instead."),
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, help="How often to try again after a temporary fault.")
    ] = 0,
    timeout_s: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds without an answer that are a fault.")
    ] = 30.0,
    unpacked: Annotated[
        bool, typer.Option("--unpack", help="Also unpack each archive as data/unpacked/NAME.")
    ] = False,
    params: ParamsFile = None,
    profile: ProfileName = None,
) -> None:
    """Download archives into data/raw, verify them and track them with DVC.

    `model` is the base model of --params or --profile, from the Hugging Face hub at task.revision
    into the hub's own cache. Resumes a download that was interrupted. Exit code 75: trying again
    later may succeed.

    Example: vlm-r1 fetch rec_jsons_processed refgta --retries 3
    """
    from vlm_r1.data.download.catalog import archive_named
    from vlm_r1.data.download.fetch import fetch_with_retries
    from vlm_r1.stages import unpack

    if MODEL in names:
        typer.echo(_fetch_model(load_settings(params, profile)))
    names = [name for name in names if name != MODEL]
    for archive in [archive_named(name) for name in names]:
        typer.echo(fetch_with_retries(archive, Path.cwd(), mirror, retries, timeout_s))
        if unpacked and archive.is_zip:
            unpack.run(Path.cwd(), archive.name)


def _fetch_model(settings: Params) -> Path:
    from vlm_r1.errors import ConfigError
    from vlm_r1.models.hub import fetch as fetch_model

    task = settings.task
    if task.revision is None:
        raise ConfigError(
            got=f"task.revision null for task.base_model {task.base_model}",
            need="a name on the Hugging Face hub and its commit",
            because="a base in a folder is not fetched, and a name without a commit can change",
            do="name a profile (`vlm-r1 fetch model --profile lora-1gpu`), or set task.revision",
        )
    return fetch_model(task.base_model, task.revision)


@data_app.command(rich_help_panel=DATA)
def convert(
    source: DatasetFile,
    to: Annotated[Literal["records", "vlm-r1"], typer.Option(help="The format to write.")],
    out: Annotated[
        Path,
        typer.Option(dir_okay=False, help="The file to write; vlm-r1 as *.jsonl has a row a line."),
    ],
    source_format: FormatName = None,
    image_root: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of the images, for their sizes."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Take only this split; in a file without splits, the name to write."),
    ] = None,
) -> None:
    """Convert a dataset file into records.parquet or VLM-R1's JSON.

    Nothing is written if a row is wrong. docs/data.md shows a row of each format.

    Example: vlm-r1 convert --from refer "refs(unc).p" --to vlm-r1 --out val.json --split val
    """
    from vlm_r1.data.convert import convert_file

    count = convert_file(source, source_format, to, out, image_root, split)
    typer.echo(f"{count} records: {out}")


@data_app.command(rich_help_panel=DATA)
def validate(
    records: DatasetFile,
    out: Annotated[
        Path,
        typer.Option(file_okay=False, help="Folder for validation.json and validation.html."),
    ],
    image_root: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder of the images.")
    ] = None,
    metadata_only: Annotated[
        bool, typer.Option("--metadata-only", help="Open no image; compare images by id only.")
    ] = False,
    against: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="Records that must share no image."),
    ] = None,
    source_format: FormatName = None,
    params: ParamsFile = None,
    profile: ProfileName = None,
) -> None:
    """Check a dataset before training on it. Exit code 0: it passes, 1: it fails.

    Limits come from the section `validation` of --params or --profile, if one is given.

    Example: vlm-r1 validate my.csv --image-root photos --out checked --against train.json
    """
    from vlm_r1.data.validation.check_file import check_file

    if not metadata_only and (image_root is None or not image_root.is_dir()):
        raise typer.BadParameter(
            "need the folder of the images, or --metadata-only", param_hint="--image-root"
        )
    is_given = params is not None or profile is not None
    bounds = load_settings(params, profile).validation if is_given else standalone.VALIDATION
    check = check_file(
        records,
        source_format,
        image_root or Path(),
        out,
        bounds=bounds,
        against=against or [],
        metadata_only=metadata_only,
    )
    typer.echo("\n".join(check.lines))
    raise typer.Exit(0 if check.passed else 1)
