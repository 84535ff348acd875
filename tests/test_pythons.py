"""The Pythons that this runs on are the same in every file that names them, and each has a lock."""

import ast
import re
import tomllib
from importlib import metadata

import yaml

from tests.conftest import ROOT


def pins(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def test_project_workflow_and_makefile_name_the_same_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    versions = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13"]
    assert project["requires-python"] == ">=3.11,<3.14"
    found = re.findall(r"python(3\.\d+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert found == versions


def test_the_locks_pin_each_package_that_both_have_to_one_version():
    older, newer = pins("requirements.lock"), pins("requirements-3.13.lock")
    both = older.keys() & newer.keys()
    assert len(both) > 250
    assert {name: older[name] for name in both} == {name: newer[name] for name in both}
    assert older.keys() ^ newer.keys() == {"pendulum", "tzdata", "whenever"}  # Prefect's, by Python


def test_every_package_that_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {_normalized(re.split(r"[^\w.-]", one)[0]) for one in project["dependencies"]}
    distributions = metadata.packages_distributions()
    files = [file for folder in ("src", "flows", "tasks") for file in (ROOT / folder).rglob("*.py")]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    imported = {name for tree in trees for node in ast.walk(tree) for name in _top_names(node)}
    found = {name: {_normalized(one) for one in distributions.get(name, [])} for name in imported}
    own = declared | {"vlm-r1", "pydantic-core"}  # the latter is pydantic's, released with it
    assert {name for name, offered in found.items() if offered and not offered & own} == set()


def _top_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    is_absolute = isinstance(node, ast.ImportFrom) and node.module and not node.level
    return [node.module.partition(".")[0]] if is_absolute else []


def _normalized(name: str) -> str:
    return name.lower().replace("_", "-")
