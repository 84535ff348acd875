"""Links, make targets, commands and folders named in the docs exist; the picture is current."""

import importlib.util
import re
from pathlib import Path

import pytest
import typer

from tests.layout import ROOT
from vlm_r1.cli.main import app

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "mlflow/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # names what is gone
)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
CODE = re.compile(r"```.*?\n(.*?)```|`([^`\n]+)`", re.DOTALL)
PACKAGE = ROOT / "src/vlm_r1"


def code_in(page: Path) -> str:
    """The code blocks and code spans of a page, comments of shell lines removed."""
    found = CODE.findall(page.read_text(encoding="utf-8"))
    return "\n".join(re.sub(r"(?m)(^|\s)#.*$", "", block or span) for block, span in found)


def commands(group) -> dict:
    return getattr(group, "commands", {})


def architecture():
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs/architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_found():
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "docs/README.md", "examples/README.md"} <= names
    assert "make demo" in code_in(ROOT / "README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_named_is_in_the_makefile(page):
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert set(re.findall(r"\bmake ([a-z-]+)", code_in(page))) - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_named_exists(page):
    known = commands(typer.main.get_command(app))
    stages = commands(known["stage"])
    named = re.findall(r"\bvlm-r1 ([a-z][a-z-]*)(?: ([a-z]+)\b)?", code_in(page))
    assert {command for command, _ in named} - set(known) == set()
    assert {name for command, name in named if command == "stage" and name} - set(stages) == set()


def test_the_index_names_every_page_of_docs():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(LINK.findall(index))


def test_the_tree_in_the_readme_has_every_folder_and_no_other():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"## What is where\n+```\n(.+?)```", readme, re.DOTALL)
    named = set(re.findall(r"\b([a-z_]+)/", tree))
    packages = {init.parent.name for init in PACKAGE.glob("*/__init__.py")}
    top = {"flows", "tasks", "mlflow", "tests", "benchmarks", "docs", "examples"}
    assert packages | top <= named
    inside = {folder.name for folder in PACKAGE.rglob("*") if folder.is_dir()}
    assert {name for name in named if not (ROOT / name).is_dir()} - inside - {"vlm_r1"} == set()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 110


def test_the_architecture_picture_is_current():
    drawn = architecture().draw()
    assert (ROOT / "docs/architecture.svg").read_text(encoding="utf-8") == drawn, "run `make deps`"


def test_the_picture_has_words_for_every_package_and_every_stage_of_dvc():
    module = architecture()
    assert set(module.PACKAGES) == set(module.package_imports())
    assert {"draw", "sft", "grpo", "evaluate", "report"} <= set(module.stages_and_outputs())


def test_packages_that_import_each_other_in_a_circle_are_refused():
    circle = {"a": {"vlm_r1.b"}, "b": {"vlm_r1.a"}}
    with pytest.raises(ValueError, match=r"circle: \['a', 'b'\]"):
        architecture().rows_of_packages(circle)
