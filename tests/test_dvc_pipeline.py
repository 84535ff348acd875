"""dvc.yaml: what it lists, and what it runs again (with commands that only write their outputs)."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from flows.generalization import STAGES, stages_of
from tasks.dvc_deps import STAGE_MODULES, code_deps, with_code_deps
from tests.layout import ROOT
from vlm_r1.config import load_params

DVC = str(Path(sys.executable).with_name("dvc"))
STAND_IN = """
import pathlib, sys, yaml
name, *words = sys.argv[1:]
method, *seed = [word for word in words if word != "--seed"] or [""]
if name == "train" and not seed:
    name = method
elif seed:
    name += "_seed"
stages = yaml.safe_load(pathlib.Path("dvc.yaml").read_text())["stages"]
for out in stages[name].get("do", stages[name])["outs"]:
    out = pathlib.Path(out.replace("${key}", "-".join([method, *seed])))
    inside = {
        "data/drawn": [f"{x}/records.json" for x in yaml.safe_load(open("params.yaml"))["draw"]],
        "data/inputs": ["training.json", "evaluation.json"],
    }.get(str(out), ["cost.json", "training_log.jsonl"])
    for file in [out] if out.suffix else [out / x for x in inside]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
"""


def stages() -> dict[str, dict]:
    """Stage -> its definition, the body of a `foreach` for one."""
    listed = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {name: stage.get("do", stage) for name, stage in listed.items()}


def test_the_code_in_deps_is_what_the_stages_import():
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert text == with_code_deps(text), "run `make deps`"


@pytest.mark.parametrize("stage", stages())
def test_a_stage_depends_on_its_own_module_and_on_what_it_renders(stage):
    code = code_deps(stage)
    assert f"src/vlm_r1/stages/{STAGE_MODULES.get(stage, stage)}.py" in code
    assert all((ROOT / dep).exists() for dep in code)
    assert ("src/vlm_r1/report/render" in code) == (stage == "report")
    assert ("src/vlm_r1/config/deepspeed_json" in code) == (STAGE_MODULES.get(stage) == "train")


def test_every_section_of_params_is_listed_by_a_stage():
    sections = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    keys = [key for stage in stages().values() for key in stage.get("params", [])]
    keys += re.findall(r"foreach: \$\{(\w+)\}", (ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    assert {key.split(".")[0] for key in keys} - {"${item"} == set(sections)


def test_the_flow_names_every_stage_once_and_in_an_order_that_dvc_allows():
    dot = dvc(ROOT, "dag", "--dot").stdout.replace('"', "").replace(";", "")
    edges = [line.split(" -> ") for line in dot.splitlines() if "->" in line]
    assert len(edges) > 10
    edges = [(stage_of(a), stage_of(b)) for a, b in edges]
    named = {name for edge in edges for name in edge}
    assert sorted(STAGES) == sorted(named | {"unpack"})  # no archives in the laptop profile
    backwards = [(a, b) for a, b in edges if STAGES.index(a) > STAGES.index(b)]
    assert backwards == []


def stage_of(stage: str) -> str:
    """The flow runs some groups of stages as one."""
    group = stage.partition("@")[0]
    return group if group in STAGES else stage


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory) -> Path:
    """A clone whose stages write a word, after `dvc repro`."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("params.yaml", "dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "models/base").mkdir(parents=True)
    (root / "models/base/weights").write_text("from git")
    (root / "stand_in.py").write_text(STAND_IN)
    edit(root / "dvc.yaml", 'PATH="$PATH:.venv/bin" vlm-r1 stage', f"{sys.executable} stand_in.py")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    dvc(root, "init", "--quiet")
    shutil.copy(ROOT / ".dvc/config", root / ".dvc/config")
    ran = dvc(root, "repro").stdout
    started = re.findall(r"Running stage '(.+)':", ran)
    assert [*dict.fromkeys(map(stage_of, started))] == [
        stage for stage in STAGES if stage not in ("unpack", "base")
    ]
    assert len(started) == 9 + 4, "one version a dataset"
    return root


@pytest.fixture
def clone(reproduced, tmp_path) -> Path:
    return Path(shutil.copytree(reproduced, tmp_path / "clone", symlinks=True))


def dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [DVC, "--wait-for-lock", *arguments],
        cwd=root,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name}: {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def stale(root: Path) -> set[str]:
    return set(json.loads(dvc(root, "status", "--json").stdout))


def test_with_nothing_changed_repro_runs_nothing_and_is_quick(reproduced):
    started_s = time.monotonic()
    ran = dvc(reproduced, "repro").stdout
    assert "Running" not in ran
    assert "up to date" in ran
    assert time.monotonic() - started_s < 15  # 2 on an idle machine


def test_the_base_of_a_clone_is_taken_as_it_is(reproduced):
    assert (reproduced / "models/base/weights").read_text() == "from git"
    assert stale(reproduced) == set()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("max_new_tokens: 72", "max_new_tokens: 70", {"evaluate@sft", "evaluate@grpo", "prompts"}),
        ("resamples: 10000", "resamples: 999", {"report"}),
        ("prompt_matrix: false", "prompt_matrix: true", {"prompts", "report"}),
        ("beta: 0.04", "beta: 0.05", {"grpo"}),
        ("model_name: vlm-r1-rec", "model_name: other", {"register"}),
        ("find_steps: ", "find_steps: 1", set()),  # frozen
    ],
)
def test_a_changed_knob_makes_only_its_readers_stale(clone, old, new, expected):
    edit(clone / "params.yaml", old, new)
    assert stale(clone) == expected


def test_further_seeds_add_stages_and_leave_the_first_runs_alone(clone):
    edit(clone / "params.yaml", "seeds: []", "seeds: [7]")
    params = load_params(clone / "params.yaml")
    further = [stage for stage in stages_of(params) if stage not in STAGES]
    assert further == [
        "train_seed@sft-7",
        "train_seed@grpo-7",
        "evaluate_seed@sft-7",
        "evaluate_seed@grpo-7",
    ]
    ran = dvc(clone, "repro").stdout.splitlines()
    runs = {line.split("'")[1] for line in ran if line.startswith("Running")}
    assert runs == {*further, "report", "register"}
    assert (clone / "models/grpo-7/cost.json").exists()
    assert (clone / "results/sft-7").is_dir()
    edit(clone / "params.yaml", "learning_rate: 1.0e-4\n  schedule: linear\n  warmup_share: 0.0\n"
         "  micro_batch: 16", "learning_rate: 2.0e-4\n  schedule: linear\n  warmup_share: 0.0\n"
         "  micro_batch: 16")  # fmt: skip
    assert stale(clone) == {"sft", "train_seed@sft-7"}  # what hangs on them follows


def test_no_stage_asks_for_telemetry_or_updates():
    shown = dvc(ROOT, "config", "--list", "--project").stdout.split()
    assert {"core.analytics=false", "core.check_update=false"} <= set(shown)
