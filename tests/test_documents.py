"""README, CONTRIBUTING and docs: links lead somewhere, commands exist, the tree is the tree."""

import re
from pathlib import Path

import pytest
import typer.main

from tests.layout import ROOT
from vlm_r1.cli.main import app

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "mlflow/README.md")),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_in(page: Path) -> str:
    return "\n".join(CODE.findall(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= targets
    named = set(re.findall(r"\bmake (?:--\S+ )?([a-z]+)\b", code_in(page)))
    assert named - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page):
    commands = typer.main.get_command(app).commands
    assert {"score", "stage"} <= set(commands)
    named = set(re.findall(r"\bvlm-r1 ([a-z][a-z-]*)", code_in(page)))
    assert named - set(commands) == set()
    stages = set(re.findall(r"\bvlm-r1 stage ([a-z]+)", code_in(page)))
    assert stages - set(commands["stage"].commands) == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_of_the_library_exist(page):
    named = re.findall(r"\b(?:src/vlm_r1|flows|tasks|tests|profiles)/[\w/]+\.\w+", code_in(page))
    assert [file for file in named if not (ROOT / file).exists()] == []


def test_the_readme_shows_every_package_and_folder():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"## What is where\n\n```\n(.*?)```", text, re.DOTALL)[1]
    named = set(re.findall(r"(\w+)/", tree))
    packages = {file.parent.name for file in (ROOT / "src/vlm_r1").glob("*/__init__.py")}
    folders = {"flows", "tasks", "mlflow", "tests", "benchmarks", "docs", "examples", "profiles"}
    assert named == packages | folders | {"src", "vlm_r1", "render"}
    assert text.count("\n") < 110
