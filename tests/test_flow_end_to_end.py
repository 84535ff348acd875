"""The whole chain on the miniature profile, by Prefect and by DVC alone: the same files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.layout import ROOT

BIN = Path(sys.executable).parent
COPIED = ("dvc.yaml", ".dvcignore", ".gitignore", "prefect.toml", "pyproject.toml")
FOLDERS = ("src", "flows", "tasks", "models/base")
MADE = ("data/drawn", "data/prepared", "results", "reports/selection.json")


def clone(root: Path) -> Path:
    """The project as a clone has it, with the miniature profile chosen."""
    root.mkdir()
    for name in COPIED:
        shutil.copy(ROOT / name, root / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "profiles/miniature.yaml", root / "params.yaml")
    run(root, "git", "init", "--quiet")
    run(root, BIN / "dvc", "init", "--quiet")
    shutil.copy(ROOT / ".dvc/config", root / ".dvc/config")
    run(root, "git", "add", ".")
    author = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    run(root, "git", *author, "commit", "--quiet", "--message", "clone")
    return root


def run(root: Path, *command: str | Path) -> str:
    outside = ("PREFECT", "MLFLOW", "DVC")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(outside)}
    path = os.pathsep.join([str(BIN), clean["PATH"]])
    done = subprocess.run(
        [str(part) for part in command],
        cwd=root,
        env=clean | {"PATH": path, "HOME": str(root.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def by_flow(tmp_path_factory) -> tuple[Path, str]:
    root = clone(tmp_path_factory.mktemp("flow") / "project")
    return root, run(root, sys.executable, "-m", "flows.generalization")


@pytest.fixture(scope="module")
def by_dvc(tmp_path_factory) -> Path:
    root = clone(tmp_path_factory.mktemp("dvc") / "project")
    run(root, BIN / "dvc", "repro")
    return root


def files(root: Path) -> dict[str, bytes]:
    """Relative name -> bytes of every file that must not depend on who started the stages."""
    found = [path for made in MADE for path in [root / made, *(root / made).rglob("*")]]
    return {str(path.relative_to(root)): path.read_bytes() for path in found if path.is_file()}


def test_flow_and_dvc_alone_make_the_same_files(by_flow, by_dvc):
    ours, theirs = files(by_flow[0]), files(by_dvc)
    plans = 2  # of the searches, of which there are none
    assert len([name for name in ours if name.startswith("results/")]) == 2 * 3 * 3 + plans
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_flow_and_dvc_alone_make_the_same_report_but_for_times_and_ids(by_flow, by_dvc):
    ours, theirs = (timeless_report(root) for root in (by_flow[0], by_dvc))
    assert ours["curves"]
    assert ours == theirs


def timeless_report(root: Path) -> dict:
    report = json.loads((root / "reports/generalization/report.json").read_text(encoding="utf-8"))
    del report["lineage"]
    for cost in report["cost"]:
        del cost["seconds"]
        for checkpoint in cost["checkpoints"]:
            del checkpoint["seconds"]
    for point in report["compute"]["points"]:
        del point["seconds"]
    for pair in report["compute"]["nearest"]:
        del pair["seconds_ratio"]
    assert report["reproduce"].pop(0)["command"].startswith("git checkout ")  # each its own commit
    return report


def test_the_flow_shows_the_stages_their_seconds_and_the_report(by_flow):
    root, shown = by_flow
    for expected in ("Task run 'sft'", "Task run 'evaluate@grpo'", "report/", "make mlflow"):
        assert expected.rstrip("/") in shown
    assert (root / "reports/generalization/report.html").exists()
    artifact = run(root, BIN / "prefect", "artifact", "inspect", "generalization-report")
    assert "data:image/png;base64," in artifact


def test_a_second_call_finds_nothing_to_do_and_says_where_the_report_is(by_flow):
    root, _ = by_flow
    shown = run(root, sys.executable, "-m", "flows.generalization")
    assert "Nothing has changed" in shown
    assert "reports/generalization/report.html" in shown
    assert "Task run" not in shown


def test_all_state_lies_in_the_project_and_none_in_the_home(by_flow):
    root, _ = by_flow
    assert (root / ".prefect/prefect.db").exists()
    assert (root / ".mlflow/mlflow.db").exists()
    state = {".prefect", ".mlflow", "mlruns", "mlflow.db"}
    assert state & {path.name for path in root.parent.iterdir()} == set()
