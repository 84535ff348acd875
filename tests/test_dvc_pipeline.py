"""dvc.yaml: what it lists, and what becomes stale (with commands that only write their outputs)."""

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
from tasks.dvc_deps import code_deps, module_of, with_code_deps
from tests.layout import ROOT
from vlm_r1.config import METHODS, load_params
from vlm_r1.config.training import Health
from vlm_r1.paths import candidate_file

DVC = str(Path(sys.executable).with_name("dvc"))
STAND_IN = """
import json, os, pathlib, yaml
MADE = "configuration.json", "cost.json", "training_log.jsonl"
name, _, key = os.environ["DVC_STAGE"].partition("@")
stages = yaml.safe_load(pathlib.Path("dvc.yaml").read_text())["stages"]
params = yaml.safe_load(pathlib.Path("params.yaml").read_text())
sets = params["datasets"].items()
texts = {
    "data/drawn": {f"{split}/records.json": name for split in params["draw"]},
    "data/inputs": {
        "training.json": json.dumps([d for d in sets if d[1]["role"] == "train"]),
        "search.json": json.dumps([d for d in sets if d[1]["role"] == "validation"]),
        "evaluation.json": json.dumps([d for d in sets if d[1]["role"] != "train"]),
    },
}
for out in stages[name].get("do", stages[name])["outs"]:
    out = pathlib.Path(out.replace("${key}", key).replace("${item}", key))
    inside = texts.get(str(out), dict.fromkeys(MADE, name))
    for file, text in {"": name}.items() if out.suffix else inside.items():
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (out / file).write_text(text)
"""
DOC = ROOT / "docs/staleness.md"
# Parameters that no stage lists: they decide where a training runs and when it warns.
UNLISTED = {
    *("launch.device", "launch.endpoint", "launch.id", "launch.vllm_server_url"),
    *(f"health.{name}" for name in Health.model_fields),
}


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
    assert f"src/vlm_r1/stages/{module_of(stage)}.py" in code
    assert all((ROOT / dep).exists() for dep in code)
    assert ("src/vlm_r1/report/render" in code) == (stage == "report")
    trains = module_of(stage) in (*METHODS, "candidate")
    assert ("src/vlm_r1/config/deepspeed_json" in code) == trains


def test_every_parameter_is_listed_by_a_stage_or_changes_no_result():
    keys = [key for stage in stages().values() for key in stage.get("params", [])]
    keys = [key.replace("${item.method}", method) for key in keys for method in METHODS]
    keys += re.findall(r"foreach: \$\{(\w+)\}", (ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    known = {key for key in dotted_keys(params) if "datasets." not in key and "draw." not in key}
    listed = {key for key in known if any(is_under(key, above) for above in keys)}
    assert known - listed == UNLISTED
    assert {key for key in keys if not any(is_under(k, key) for k in known)} <= {
        "datasets",
        "draw",
    }


def dotted_keys(values: dict, above: str = "") -> set[str]:
    """Dotted names of all values that are no mappings."""
    found = set()
    for key, value in values.items():
        dotted = f"{above}{key}"
        found |= dotted_keys(value, f"{dotted}.") if isinstance(value, dict) else {dotted}
    return found


def is_under(key: str, above: str) -> bool:
    return key == above or key.startswith(f"{above}.")


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
    assert len(started) == 11 + 4, "one version a dataset"
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


def ran_by(repro: subprocess.CompletedProcess) -> set[str]:
    """Stages that `dvc repro` ran."""
    return set(re.findall(r"^Running stage '(.+)':", repro.stdout, re.MULTILINE))


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


def edits(heading: str) -> dict[str, str]:
    """Edit -> stages, from the table under a heading of docs/staleness.md."""
    section = DOC.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\|[^|]*`([^`|]+)` *\|([^|]+)\|", section, re.MULTILINE))


def named_stages(cell: str) -> set[str]:
    """The stages in a cell of the table; "nothing" is none."""
    return set(re.findall(r"`(\w+)`", cell))


CODE_EDITS, PARAMETER_EDITS = edits("A comment in the code"), edits("A parameter")


def test_the_table_of_stale_stages_is_read():
    assert len(CODE_EDITS) >= 20
    assert len(PARAMETER_EDITS) >= 15
    free = [path for path, cell in CODE_EDITS.items() if not named_stages(cell)]
    assert {"cli", "config", "preflight", "tracking"} <= {path.split("/")[0] for path in free}
    cells = [*CODE_EDITS.values(), *PARAMETER_EDITS.values()]
    assert {cell.strip() for cell in cells if not named_stages(cell)} == {"nothing"}
    assert {stage for cell in cells for stage in named_stages(cell)} <= set(stages())


@pytest.mark.parametrize("path", CODE_EDITS)
def test_a_comment_makes_the_stages_stale_that_the_table_names(clone, path):
    file = clone / "src/vlm_r1" / path
    file.write_text(file.read_text(encoding="utf-8") + "\n# a comment\n", encoding="utf-8")
    assert {stage.partition("@")[0] for stage in stale(clone)} == named_stages(CODE_EDITS[path])


@pytest.mark.parametrize("edited", PARAMETER_EDITS)
def test_a_parameter_makes_the_stages_stale_that_the_table_names(clone, edited):
    *above, key = edited.partition(": ")[0].split(".")
    params = yaml.safe_load((clone / "params.yaml").read_text(encoding="utf-8"))
    section = params
    for part in above:
        section = section[part]
    assert key in section
    section[key] = yaml.safe_load(edited.partition(": ")[2])
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    assert {stage.partition("@")[0] for stage in stale(clone)} == named_stages(
        PARAMETER_EDITS[edited]
    )


def test_a_new_test_dataset_trains_nothing_again(clone):
    (clone / "mine").mkdir()
    (clone / "mine/records.json").write_text("mine")
    entry = "{ role: ood, records: mine/records.json, images: mine, format: vlm-r1,"
    edit(
        clone / "params.yaml",
        "\nvalidation:\n",
        f"  mine: {entry} split: null, sampling: all, published: null, exif: applied,"
        " accuracy_reward: null }\n\nvalidation:\n",
    )
    assert stale(clone) == {"prepare", "version@mine"}
    assert ran_by(dvc(clone, "repro")) == {
        *("version@mine", "prepare", "evaluate@sft", "evaluate@grpo"),
        *("prompts", "report", "register"),
    }


def test_further_seeds_add_stages_and_leave_the_first_runs_alone(clone):
    edit(clone / "params.yaml", "seeds: []", "seeds: [7]")
    params = load_params(clone / "params.yaml")
    further = [stage for stage in stages_of(params) if stage not in STAGES]
    assert further == [
        "sft_seed@7",
        "grpo_seed@7",
        "evaluate_seed@sft-7",
        "evaluate_seed@grpo-7",
    ]
    assert ran_by(dvc(clone, "repro")) == {*further, "report"}
    assert (clone / "models/grpo-7/cost.json").exists()
    assert (clone / "results/sft-7").is_dir()
    edit(clone / "params.yaml", "learning_rate: 1.0e-4\n  schedule: linear\n  warmup_share: 0.0\n"
         "  micro_batch: 16", "learning_rate: 2.0e-4\n  schedule: linear\n  warmup_share: 0.0\n"
         "  micro_batch: 16")  # fmt: skip
    assert stale(clone) == {"sft", "sft_seed@7"}  # the stages after them follow in a repro


def test_a_search_adds_a_stage_a_candidate_before_the_trainings(clone):
    text = (clone / "params.yaml").read_text(encoding="utf-8")
    for method, rates in (("sft", "[1.0e-4, 3.0e-5]"), ("grpo", "[1.0e-5, 0.5]")):
        text = text.replace(
            f"  {method}: {{ learning_rate: [] }}", f"  {method}: {{ learning_rate: {rates} }}"
        )
    (clone / "params.yaml").write_text(text, encoding="utf-8")
    listed = stages_of(load_params(clone / "params.yaml"))
    candidates = [stage for stage in listed if stage not in STAGES]
    assert candidates == [
        *("candidate_sft@0.0001", "candidate_sft@3e-05"),
        *("candidate_grpo@1e-05", "candidate_grpo@0.5"),
    ]
    assert listed.index("search@grpo") < listed.index(candidates[0]) < listed.index("sft")
    ran = ran_by(dvc(clone, "repro"))
    assert {*candidates, "search@sft", "search@grpo", "sft", "grpo", "report"} <= ran
    assert candidate_file("sft", 3e-5) == Path("results/search/sft/3e-05.json")
    assert (clone / candidate_file("sft", 3e-5)).exists()
    assert stale(clone) == set()


def test_no_stage_asks_for_telemetry_or_updates():
    shown = dvc(ROOT, "config", "--list", "--project").stdout.split()
    assert {"core.analytics=false", "core.check_update=false"} <= set(shown)
