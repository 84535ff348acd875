"""`vlm-r1`: the command line. Commands for people, and `vlm-r1 stage ...` for dvc.yaml.

Heavy packages are imported inside the commands, so that `--help` and `config` answer at once.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer
import yaml

from vlm_r1 import environment
from vlm_r1.cli import console
from vlm_r1.cli.data import data_app
from vlm_r1.cli.evaluation import evaluation_app
from vlm_r1.cli.export import export_app
from vlm_r1.cli.options import EVALUATION, PIPELINE, ParamsFile, ProfileName, load_settings
from vlm_r1.cli.report import report_app
from vlm_r1.cli.stages import stage_app
from vlm_r1.cli.training import training_app
from vlm_r1.errors import InputError, error_text

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit. Errors in the input are printed without a traceback.

    Args:
        arguments: without the program's name; default: those of this process.
    """
    environment.set_defaults()
    console.set_up_logging()
    try:
        code = app(arguments, prog_name="vlm-r1", standalone_mode=False)
    except typer.TyperException as error:
        console.show_usage_error(error)
        code = error.exit_code
    except InputError as error:
        typer.echo(error_text(error), err=True)
        code = error.exit_code
    sys.exit(code)


@app.callback()
def options(
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", envvar=console.VERBOSE, help="Log everything, also of libraries."
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", envvar=console.QUIET, help="Log only warnings.")
    ] = False,
) -> None:
    """Compare GRPO (R1) with SFT for referring expression comprehension, fairly and repeatably.

    Every command has an example: vlm-r1 COMMAND --help
    """
    if verbose and quiet:
        raise typer.BadParameter("use either --verbose or --quiet", param_hint="--quiet")
    console.set_log_level(verbose, quiet)


@app.command(rich_help_panel=PIPELINE)
def config(params: ParamsFile = None, profile: ProfileName = None) -> None:
    """Check the parameters and print all of them, defaults included, as YAML.

    Example: vlm-r1 config --profile lora-1gpu
    """
    resolved = load_settings(params, profile).model_dump(mode="json")
    typer.echo(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), nl=False)


app.add_typer(stage_app, name="stage", no_args_is_help=True, rich_help_panel=PIPELINE)
app.add_typer(data_app)
app.add_typer(training_app)
app.add_typer(evaluation_app)
app.add_typer(export_app, name="export", no_args_is_help=True, rich_help_panel=EVALUATION)
app.add_typer(report_app)


if __name__ == "__main__":
    main()
