"""The examples in examples/ run as their READMEs say, on a small project of their own."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tests.conftest import ROOT, small_values, untracked_training
from vlm_r1.cli.main import app
from vlm_r1.config import METHODS, Params, parse_params
from vlm_r1.data.records import read_records
from vlm_r1.paths import REPORT, records_file
from vlm_r1.rec.results import read_results
from vlm_r1.stages import evaluate, prepare, prompts, report

EXAMPLES = ("own_reward", "own_dataset", "own_out_of_domain")


@pytest.fixture
def project(small_root, tmp_path) -> Path:
    """Drawn and prepared data, an untrained base, and the examples beside them."""
    root = tmp_path / "project"
    for name in ("data", "models/base"):
        shutil.copytree(small_root / name, root / name)
    shutil.copytree(ROOT / "examples", root / "examples")
    return root


def readme_of(example: str) -> str:
    return (ROOT / "examples" / example / "README.md").read_text(encoding="utf-8")


def change_of(example: str) -> dict:
    """The change of params.yaml that the README of an example shows."""
    (block,) = re.findall(r"```yaml\n(.+?)```", readme_of(example), re.DOTALL)
    return yaml.safe_load(block)


def changed_params(example: str, keep_datasets: bool = True) -> Params:
    """Small parameters with the change of an example's README."""
    values = small_values()
    change = change_of(example)
    if not keep_datasets:
        values["datasets"] = {}
    for section, keys in change.items():
        values[section] |= keys
    return parse_params(values, example)


def table_rows(file: str) -> list[dict]:
    with (ROOT / "examples" / file).open(encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_every_example_has_a_readme_and_a_test():
    folders = {path.name for path in (ROOT / "examples").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(EXAMPLES)
    listed = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    assert all(f"({example}/README.md)" in listed for example in EXAMPLES)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("<answer>[2, 2, 6, 6]</answer>", 1.0),
        ("<answer>[0, 0, 28, 28]</answer>", 0.0),  # twice too large: center (14, 14) -> (7, 7)
        ("<answer>no idea</answer>", 0.0),
    ],
)
def test_the_own_reward_pays_for_a_center_inside_the_true_box(answer, expected):
    namespace: dict = {}
    source = (ROOT / "examples/own_reward/pointing.py").read_text(encoding="utf-8")
    exec(compile(source, "pointing.py", "exec"), namespace)
    given = namespace["pointing"](
        prompts=[None],
        completions=[[{"role": "assistant", "content": answer}]],
        completion_ids=[[]],
        true_box=[[0.0, 0.0, 5.0, 5.0]],
        image_size=[(28, 28)],
        input_size=[(56, 56)],  # the processor doubled the image, so boxes are halved
    )
    assert given == [expected]


def test_grpo_trains_on_the_own_reward_and_logs_it(project):
    params = changed_params("own_reward")
    untracked_training(params, project, "grpo")
    log = (project / "models/grpo/training_log.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in log.splitlines()]
    means = [line["rewards/pointing/mean"] for line in lines if "rewards/pointing/mean" in line]
    assert len(means) == params.train.steps
    assert all(0 <= mean <= 1 for mean in means)


def test_the_own_tables_are_validated_by_the_commands_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = readme_of("own_dataset").replace("\\\n", " ").replace("/tmp/checked", str(tmp_path))
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("vlm-r1 ")]
    assert [command[0] for command in commands] == ["validate", "validate"]
    for command in commands:
        told = CliRunner().invoke(app, command)
        assert told.exit_code == 0, told.output
        assert (tmp_path / "validation.html").exists()


def test_sft_trains_on_the_own_data_set(project):
    params = changed_params("own_dataset", keep_datasets=False)
    prepare.run(params, project)
    records = read_records(project / records_file("desk_train"))
    rows = table_rows("own_dataset/train.csv")
    assert len(records) == len(rows) == 24
    first = [float(rows[0][name]) for name in ("x", "y", "w", "h")]
    assert records.iloc[0][["x1", "y1"]].tolist() == first[:2]
    assert records.iloc[0]["x2"] == first[0] + first[2]
    untracked_training(params, project, "sft")
    assert (project / f"models/sft/checkpoint-{params.train.steps}").is_dir()


def test_the_report_compares_both_methods_on_the_own_out_of_domain_set(project, monkeypatch):
    monkeypatch.setattr("vlm_r1.tracking.after_evaluation", lambda *_: None)
    params = changed_params("own_out_of_domain")
    prepare.run(params, project)
    for method in METHODS:
        untracked_training(params, project, method)
        evaluate.run(params, project, method)
    rows = read_results(project / f"results/sft/night/step-{params.train.steps}.json").results
    assert len(rows) == len(table_rows("own_out_of_domain/night.csv")) == 12
    prompts.run(params, project)
    report.run(params, project)
    written = json.loads((project / REPORT / "report.json").read_text(encoding="utf-8"))
    roles = {one["name"]: one["role"] for one in written["datasets"]}
    assert roles["night"] == "ood"
    compared = {one["dataset"] for one in written["comparisons"]}
    assert {"street_test", "night"} <= compared
