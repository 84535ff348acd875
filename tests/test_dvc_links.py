"""Outputs that DVC links into its cache: stages replace them, and every version stays as it was."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.layout import ROOT, SOURCE

DVC = Path(sys.executable).parent / "dvc"
STAGE = """
stages:
  make:
    cmd: {python} make.py
    deps: [make.py]
    outs: [out, one.json]
"""
PROGRAM = """
from pathlib import Path
from vlm_r1.files import put_in_place, whole_folder, write_text
with whole_folder(Path("out")) as folder:
    (folder / "a").write_text("{text}")
work = Path("work.part")  # as a training does, which goes on in its own folder
work.mkdir()
(work / "weights").write_text("{text}")
put_in_place(work, Path("out/checkpoint"))
write_text(Path("one.json"), "{text}")
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "dvc.yaml").write_text(STAGE.format(python=sys.executable))
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    dvc(tmp_path, "init", "--quiet")
    shutil.copy(ROOT / ".dvc/config", tmp_path / ".dvc/config")
    return tmp_path


def dvc(root: Path, *words: str) -> None:
    done = subprocess.run(
        [DVC, *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def make(root: Path, text: str) -> list[str]:
    """Run the stage with another program; the contents of its outputs afterwards."""
    (root / "make.py").write_text(PROGRAM.format(text=text))
    dvc(root, "repro")
    return contents(root)


def outputs(root: Path) -> list[Path]:
    return [root / "out/a", root / "out/checkpoint/weights", root / "one.json"]


def contents(root: Path) -> list[str]:
    return [file.read_text().strip() for file in outputs(root)]


def test_a_stage_replaces_linked_outputs_and_the_cache_keeps_every_version(project):
    assert make(project, "first") == ["first"] * 3
    for file in outputs(project):
        is_hard_link = file.stat().st_nlink > 1  # else the filesystem has reflinks
        assert not is_hard_link or not file.stat().st_mode & stat.S_IWUSR
    lock = (project / "dvc.lock").read_text()
    (project / "make.py").rename(project / "first.py")
    assert make(project, "second") == ["second"] * 3
    (project / "dvc.lock").write_text(lock)
    (project / "first.py").rename(project / "make.py")
    dvc(project, "checkout", "--force")
    assert contents(project) == ["first"] * 3
    dvc(project, "repro")
    assert contents(project) == ["first"] * 3
