"""What DVC shows of a report: the same numbers as report.json, without our code."""

import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tests.report_files import HITS, STEPS, tiny_params, write_experiment
from tests.test_dvc_pipeline import ROOT, dvc
from vlm_r1 import paths
from vlm_r1.stages import report as stage

PARAMS = tiny_params()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A repository with a report, and the committed dvc.yaml less its stages."""
    root = tmp_path_factory.mktemp("project")
    write_experiment(root, PARAMS)
    stage.run(PARAMS, root)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    dvc(root, "init", "--quiet")
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    (root / "dvc.yaml").write_text(text[text.index("metrics:\n") :])
    return root


def test_the_tables_of_the_curves_hold_every_accuracy(project):
    for role, dataset in (("id", "studio_test"), ("ood", "street_test")):
        table = pd.read_csv(project / paths.REPORT / "plots" / f"{dataset}.csv")
        assert table.columns.tolist() == ["step", "sft", "grpo"]
        assert table["step"].tolist() == list(STEPS)
        for method in ("sft", "grpo"):
            expected = [100 * hits / 12 for hits in HITS[method, role]]
            assert table[method].tolist() == pytest.approx(expected)


def test_dvc_shows_the_numbers_of_the_report(project):
    shown = json.loads(dvc(project, "metrics", "show", "--json").stdout)
    (found,) = (file["data"] for file in shown[""]["data"].values())
    report = json.loads((project / paths.REPORT / "report.json").read_text("utf-8"))
    assert found["verdict"]["difference"] == report["verdict"]["difference"]
    assert found["accuracy"]["street_test"]["sft"] == pytest.approx(100 / 12)
    text = dvc(project, "metrics", "show").stdout
    assert "accuracy.street_test.grpo" in text


def test_dvc_draws_both_methods_over_the_steps(project):
    shown = json.loads(dvc(project, "plots", "show", "--json").stdout)["data"]
    assert {Path(name).stem for name in shown} == {"studio_test", "street_test"}
    for (plot,) in shown.values():
        points = plot["content"]["data"]["values"]
        assert {point["field"] for point in points} == {"sft", "grpo"}
        assert sorted({int(point["step"]) for point in points}) == list(STEPS)


def test_dvc_tells_what_changed_since_a_commit(project, tmp_path):
    root = Path(shutil.copytree(project, tmp_path / "copy"))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "add", "--force", "."], cwd=root, check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "first"], cwd=root, check=True)
    file = root / paths.REPORT / "metrics.json"
    file.write_text(file.read_text().replace("8.333", "9.333"))
    changed = json.loads(dvc(root, "metrics", "diff", "--json").stdout)
    (metrics,) = changed.values()
    assert metrics["accuracy.street_test.sft"]["diff"] == pytest.approx(1.0)
