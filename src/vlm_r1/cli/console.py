"""What the command line writes to stderr: log lines with their level, and errors."""

import logging
import os

import typer
from typer import TyperException

VERBOSE = "VLM_R1_VERBOSE"  # set for the processes that a command starts, e.g. by torchrun
QUIET = "VLM_R1_QUIET"


class LevelFormatter(logging.Formatter):
    """Puts the level in front of a line, except for this package's own INFO lines.

    Example: "step 10/40  loss 0.52", but "warning: MLflow does not answer".
    """

    def format(self, record: logging.LogRecord) -> str:
        """One log record as text."""
        text = super().format(record)
        own = record.name.partition(".")[0] in ("vlm_r1", "__main__")
        if own and record.levelno == logging.INFO:
            return text
        return f"{record.levelname.lower()}: {'' if own else record.name + ': '}{text}"


def set_up_logging() -> None:
    """Write log lines to stderr, unless the process has log handlers already."""
    handler = logging.StreamHandler()
    handler.setFormatter(LevelFormatter())
    logging.basicConfig(handlers=[handler])


def set_log_level(verbose: bool, quiet: bool) -> None:
    """INFO of this package and WARNING of all others; DEBUG of all, or WARNING of all.

    The choice is also put into the environment, so that worker processes log alike.
    """
    if verbose:
        os.environ[VERBOSE] = "1"
    if quiet:
        os.environ[QUIET] = "1"
    logging.getLogger().setLevel(logging.DEBUG if verbose else logging.WARNING)
    own = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.getLogger("vlm_r1").setLevel(own)


def show_usage_error(error: TyperException) -> None:
    """Print an error in the command's arguments, and where to find help.

    Prints nothing if Typer has shown the help page instead (a group without a command).
    """
    message = usage_message(error)
    if not message:
        return
    lines = [f"error: {message}"]
    if context := getattr(error, "ctx", None):
        usage = " ".join(context.get_usage().removeprefix("Usage:").split())
        lines += [f"  usage: {usage}", f"  help: {context.command_path} --help"]
    typer.echo("\n".join(lines), err=True)


def usage_message(error: TyperException) -> str:
    """Typer's message on one line, with a did-you-mean for options as it has for commands."""
    if similar := getattr(error, "possibilities", None):  # of an unknown option
        return f"{error.message}. Did you mean {', '.join(map(repr, similar))}?"
    return " ".join(error.format_message().split()).replace("Value error, ", "")
