"""The help of every command is as frozen in tests/snapshots/cli_help.txt.

After a wanted change, write it anew and read the diff:
    .venv/bin/python -m pytest tests/test_cli_help.py --update-snapshots
"""

import re

import pytest
import typer
from typer.testing import CliRunner

from tests.conftest import ROOT
from vlm_r1.cli import main as cli

SNAPSHOT = ROOT / "tests/snapshots/cli_help.txt"
COLUMNS = "100"
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # colors, where the environment asks for them


def paths(group, path=()) -> list[tuple[str, ...]]:
    """Every group and command, in the order of the help."""
    below = getattr(group, "commands", {}).items()
    return [path, *(found for name, sub in below for found in paths(sub, (*path, name)))]


PATHS = paths(typer.main.get_command(cli.app))


def help_of(path: tuple[str, ...]) -> str:
    done = CliRunner().invoke(
        cli.app, [*path, "--help"], env={"COLUMNS": COLUMNS}, prog_name="vlm-r1"
    )
    assert done.exit_code == 0, done.output
    lines = [line.rstrip() for line in ESCAPES.sub("", done.output).strip().splitlines()]
    return "\n".join([f"$ {' '.join(('vlm-r1', *path, '--help'))}", "", *lines, "", ""])


def test_help_is_as_frozen(request):
    text = "\n".join(map(help_of, PATHS))
    if request.config.getoption("--update-snapshots"):
        SNAPSHOT.parent.mkdir(exist_ok=True)
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [path for path in PATHS if path and path != ("stage",)])
def test_every_command_has_an_example_of_itself(path):
    command = " ".join(("vlm-r1", *path))
    assert re.search(rf"Example: ([A-Z_]+=\S+ )?{command}", help_of(path))
