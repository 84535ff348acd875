"""The Pythons that this runs on are the same in every file that names them, and each has a lock."""

import re
import tomllib

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
