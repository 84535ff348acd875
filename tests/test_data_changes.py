"""A change of data runs exactly the stages that depend on it, for archives and other files.

`fetch`, `unpack` and `version` are real; stand-ins for the later stages hash their dependencies.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.archive_server import serve, zip_of
from tests.conftest import small_values
from tests.layout import ROOT, SOURCE
from tests.test_dvc_pipeline import dvc
from vlm_r1.data.download.catalog import Archive
from vlm_r1.data.download.fetch import fetch
from vlm_r1.data.versions import read_versions

STAND_IN = f"""
import hashlib, pathlib, sys, yaml
name, *item = sys.argv[1:]
if name in ("unpack", "version"):
    sys.path.insert(0, {str(SOURCE)!r})
    from vlm_r1.cli.main import app
    app(["stage", name, *item])
key = item[0] if item else ""
listed = yaml.safe_load(pathlib.Path("dvc.yaml").read_text())["stages"]
listed = listed[name]
fill = lambda path: pathlib.Path(path.replace("${{key}}", key))
files = [f for dep in map(fill, listed["deps"]) for f in (dep, *sorted(dep.rglob("*")))]
digest = hashlib.sha256(b"".join(f.read_bytes() for f in files if f.is_file())).hexdigest()
out = fill(listed["outs"][-1])
inside = [out / name for name in ("cost.json", "training_log.jsonl", "configuration.json")]
made = dict.fromkeys([out] if out.suffix else inside, digest)
if name == "prepare":
    roles = {{k: d["role"] for k, d in yaml.safe_load(open("params.yaml"))["datasets"].items()}}
    for consumer, wanted in (("training", True), ("evaluation", False)):
        read = [k for k, role in roles.items() if (role == "train") is wanted]
        versions = [pathlib.Path(f"data/versions/{{k}}.json").read_text() for k in read]
        made[pathlib.Path(f"data/inputs/{{consumer}}.json")] = "".join(versions)
for file, text in made.items():
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
"""
SOURCES = ["photos_a", "photos_b", "rows"]
EVALUATIONS = {"evaluate@sft", "evaluate@grpo"}
THE_REST = {"prompts", "report", "register"}


@pytest.fixture
def server():
    with serve() as archives:
        archives.files["photos_a.zip"] = zip_of({"records.json": b"[1]", "in/1.jpg": b"one"})
        archives.files["photos_b.zip"] = zip_of({"in/2.jpg": b"two"})
        archives.files["rows.zip"] = zip_of({"in/id.json": b"[1]"})
        yield archives


@pytest.fixture
def project(server, tmp_path) -> Path:
    """Three fetched archives and an image folder not from an archive; every stage has run."""
    root = tmp_path / "project"
    root.mkdir()
    for name in (".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    (root / "dvc.yaml").write_text(pipeline_of_data())
    (root / "models/base").mkdir(parents=True)
    (root / "models/base/weights").write_text("from git")
    (root / "data/own/images").mkdir(parents=True)
    (root / "data/own/images/3.jpg").write_text("three")
    for name in ("id.json", "ood.json", "train.json"):
        (root / "data/own" / name).write_text("[1]")
    (root / "params.yaml").write_text(yaml.safe_dump(params()))
    (root / "stand_in.py").write_text(STAND_IN)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    dvc(root, "init", "--quiet")
    shutil.copy(ROOT / ".dvc/config", root / ".dvc/config")
    for name in SOURCES:
        facts = {"path": f"{name}.zip", "license": "", "note": ""}
        fetch(Archive(name=name, base=server.address, **facts), root)
    first = repro(root, "prepare")  # alone, as documented: it runs only what has an edge to it
    assert {stage for stage in first if "unpack" in stage} == {f"unpack@{n}" for n in SOURCES}
    assert len(first | repro(root)) == 3 + 5 + 9 + 2  # unpack, version, the rest, search
    return root


def pipeline_of_data() -> str:
    """dvc.yaml with stand-ins for the commands, and without dependencies on code."""
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    pipeline["vars"] = [{"stage": f"{sys.executable} stand_in.py"}]
    for stage in pipeline["stages"].values():
        body = stage.get("do", stage)
        body["deps"] = [dep for dep in body["deps"] if not dep.startswith("src/")] or [
            "stand_in.py"
        ]
    return yaml.safe_dump(pipeline, sort_keys=False)


def params() -> dict:
    datasets = {
        "a_train": ("train", "data/unpacked/photos_a/records.json", "data/unpacked/photos_a"),
        "own_train": ("train", "data/own/train.json", "data/own/images"),
        "a_val": ("validation", "data/own/id.json", "data/unpacked/photos_a"),
        "b_id": ("id", "data/unpacked/rows/in/id.json", "data/unpacked/photos_b/in"),
        "own_ood": ("ood", "data/own/ood.json", "data/own/images"),
    }
    keys = ("role", "records", "images")
    rest = {"format": "vlm-r1", "split": None, "sampling": "all", "published": None}
    rest |= {"exif": "applied", "accuracy_reward": None}
    return small_values() | {
        "sources": SOURCES,
        "datasets": {
            name: dict(zip(keys, row, strict=True)) | rest for name, row in datasets.items()
        },
    }


def repro(root: Path, *targets: str) -> set[str]:
    """Run `dvc repro`, up to `targets` if given; returns the stages that ran."""
    return set(re.findall(r"Running stage '(.+)':", dvc(root, "repro", *targets).stdout))


def stale(root: Path) -> set[str]:
    """The stages that `dvc repro` would run."""
    return set(json.loads(dvc(root, "status", "--json").stdout))


def test_a_change_of_data_runs_exactly_what_depends_on_it(project, server):
    before = read_versions(project)
    assert before["b_id"].images_archive == "photos_b.zip"
    assert before["own_ood"].images_archive is None

    # an archive with images of an evaluation set only, and the record file of another dataset
    server.files["photos_b.zip"] = zip_of({"in/2.jpg": b"other"})
    dvc(project, "update", "data/raw/photos_b.zip.dvc")
    (project / "data/own/ood.json").write_text("[2]")
    changed = {"unpack@photos_b", "version@b_id", "version@own_ood"}
    assert repro(project) == changed | {"prepare"} | EVALUATIONS | THE_REST
    assert (project / "data/unpacked/photos_b/in/2.jpg").read_bytes() == b"other"
    changed = [name for name, version in read_versions(project).items() if version != before[name]]
    assert changed == ["b_id", "own_ood"]

    # an archive with records alone, whose images come from another archive
    server.files["rows.zip"] = zip_of({"in/id.json": b"[2]"})
    dvc(project, "update", "data/raw/rows.zip.dvc")
    changed = {"unpack@rows", "version@b_id"}
    assert repro(project, "prepare") == changed | {"prepare"}
    assert repro(project) == EVALUATIONS | THE_REST
    assert (project / "data/unpacked/rows/in/id.json").read_bytes() == b"[2]"

    # the training set's record file, edited in the unpacked folder, where the edit stays
    (project / "data/unpacked/photos_a/records.json").write_text("[2]")
    changed = {"unpack@photos_a", "version@a_train", "version@a_val"}  # both read that folder
    assert repro(project) == changed | {"prepare", "sft", "grpo"} | EVALUATIONS | THE_REST
    assert (project / "data/unpacked/photos_a/records.json").read_text() == "[2]"

    # another file of the training set, with images of its own
    (project / "data/own/train.json").write_text("[2]")
    changed = {"version@own_train"}
    assert repro(project) == changed | {"prepare", "sft", "grpo"} | EVALUATIONS | THE_REST

    # an image not from an archive; and an unpacked folder that was deleted
    (project / "data/own/images/3.jpg").write_text("third")
    shutil.rmtree(project / "data/unpacked/photos_b")
    of_images = {"version@own_ood", "version@own_train"}
    assert stale(project) == {*of_images, "unpack@photos_b", "version@b_id"}
    dvc(project, "repro", "unpack@photos_b")
    assert stale(project) == of_images
