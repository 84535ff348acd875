"""The command line as a person meets it."""

import json
import re
import subprocess
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import ROOT
from vlm_r1.cli import main as cli
from vlm_r1.errors import ModelError
from vlm_r1.evaluation.prediction_logs import FIELDS
from vlm_r1.rec.boxes import COORDINATE_SPACES
from vlm_r1.rec.vlm_r1_parsers import PRESETS

LOG = {
    "accuracy": 50.0,
    "results": [
        {
            "question": f"q{i}",
            "ground_truth": [0, 0, 10, 10],
            "model_output": output,
            "extracted_answer": box,
            "correct": correct,
        }
        for i, (output, box, correct) in enumerate(
            [("[0, 0, 10, 10]", [0, 0, 10, 10], 1), ("none", [0, 0, 0, 0], 0)]
        )
    ],
}
runner = CliRunner()


def vlm_r1(*arguments, cwd=ROOT):
    command = [sys.executable, "-m", "vlm_r1.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("command", "taught"),
    [
        (
            [],
            [
                "config",
                "sources",
                "fetch",
                "convert",
                "validate",
                "launch",
                "doctor",
                "plan",
                "track",
                "score",
                "compare",
                "predict",
                "report",
                "stage",
            ],
        ),
        (
            ["score"],
            ["--json", "--preset", "--coordinate-space", "--field", "--repair", "IoU > 0.5"],
        ),
        (["score"], [*FIELDS, *PRESETS, *COORDINATE_SPACES, "Example"]),
        (["compare"], ["--json", "--flips", "--common", "--allow-unfair", "B - A", "Example"]),
        (["sources"], ["--json", "Example"]),
        (["fetch"], ["--mirror", "VLM_R1_MIRROR", "--retries", "--unpack", "75", "Example"]),
        (["convert"], ["--from", "--to", "--out", "--image-root", "--split", "refgta", "Example"]),
        (["validate"], ["--image-root", "--out", "--metadata-only", "--against", "--from"]),
        (["track"], ["MLflow", "Example"]),
        (["predict"], ["--model", "--out", "Example"]),
        (["report"], ["--from-logs", "--id", "--ood", "--out", "Example"]),
        (["launch"], ["--profile", "--method", "--dry-run", "--json", "--node-rank", "Example"]),
        (["doctor"], ["--profile", "--json", "Example"]),
        (["plan"], ["--profile", "--gpus", "--gpu-memory-gib", "--json", "Example"]),
        (["stage"], ["draw", "prepare", "base", "sft", "grpo", "evaluate", "prompts", "report"]),
        (["stage"], ["register", "unpack", "version"]),
    ],
)
def test_help_teaches(command, taught):
    text = runner.invoke(cli.app, [*command, "--help"], env={"COLUMNS": "200"}).output
    assert all(word in text for word in taught)


def test_sources_are_listed_for_a_person_and_for_a_program():
    shown = runner.invoke(cli.app, ["sources"]).output
    lines = runner.invoke(cli.app, ["sources", "--json"]).output.splitlines()
    listed = {source["name"]: source for source in map(json.loads, lines)}
    assert len(listed) == 9
    for name, source in listed.items():
        assert re.search(rf"^{name}  \(.*\)\n  address  {re.escape(source['url'])}$", shown, re.M)
    assert listed["train2014"]["size_bytes"] == 13_510_573_713
    assert listed["refgta"]["sha256"] is None
    assert listed["refer_refcocop"]["file"] == "refer_refcocop.zip"


def test_a_source_that_is_not_declared_is_told_with_the_names_there_are():
    done = vlm_r1("fetch", "coco")
    assert done.returncode == 1
    assert done.stderr.startswith("got the source 'coco'\nneed one of train2014, ")


def test_config_prints_what_it_resolved():
    done = vlm_r1("config")
    assert done.returncode == 0
    assert "num_generations: 8" in done.stdout


def test_a_misspelt_key_ends_in_four_lines_and_a_code(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("  beta:", "  betta:"))
    done = vlm_r1("config", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert [line.split(" ")[0] for line in done.stderr.splitlines()] == [
        "got", "need", "because", "do:",
    ]  # fmt: skip


def test_score_prints_json(tmp_path):
    log = tmp_path / "log.json"
    log.write_text(json.dumps(LOG))
    scores = json.loads(runner.invoke(cli.app, ["score", str(log), "--json"]).output)
    assert scores["n"] == 2
    assert scores["accuracy"] == scores["stated_accuracy"] == 50.0
    assert scores["mean_iou"] == 0.5
    assert scores["parse_rate"] == 0.5


def test_score_prints_words_for_any_log_as_it_is_told(tmp_path):
    log = tmp_path / "other.jsonl"
    log.write_text('{"gt": [0, 0, 10, 10], "pred": "[10, 10, 0, 0]", "size": [40, 20]}')
    options = ["--field", "truth=gt", "--field", "completion=pred", "--field", "image_size=size"]
    told = runner.invoke(cli.app, ["score", str(log), *options, "--preset", "mar2025"]).output
    assert "n 1, accuracy 0.00 %" in told
    assert "reading mar2025, coordinate space original" in told
    told = runner.invoke(
        cli.app, ["score", str(log), *options, "--repair", "--coordinate-space", "original"]
    )
    assert "accuracy 100.00 %" in told.output
    assert "reversed corners repaired 1" in told.output


def test_a_log_that_is_none_ends_in_four_lines_and_a_code(tmp_path):
    (tmp_path / "log.json").write_text("")
    done = vlm_r1("score", "log.json", "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("got log.json: the file is empty\nneed ")


def test_predict_answers_with_json_whether_there_is_a_box_or_not(small_root, image, monkeypatch):
    monkeypatch.chdir(ROOT)
    model = str(small_root / "models/base")
    done = runner.invoke(cli.app, ["predict", "--model", model, str(image), "red one"])
    assert set(json.loads(done.stdout)) == {"box", "reason", "completion"}


def test_predict_draws_the_box(image, tmp_path, monkeypatch):
    """The model's own words are replaced, everything around them is real."""
    from vlm_r1.config import load_params
    from vlm_r1.inference import predict as prediction
    from vlm_r1.inference.generate import Completion

    monkeypatch.setattr(prediction, "load_model", lambda *_: None)
    monkeypatch.setattr(prediction, "load_processor", lambda *_: None)
    said = [Completion("<answer>[42, 28, 70, 42]</answer>", (56, 84))]
    monkeypatch.setattr(prediction, "ask_all", lambda *_, **__: said)
    out = tmp_path / "found.png"
    params = load_params(ROOT / "params.yaml")
    answer = prediction.predict_box(params, "m", image, "red one", None, out)
    assert answer["box"] == [45.0, 30.0, 75.0, 45.0]
    with Image.open(out) as drawn:
        assert drawn.getpixel((45, 30)) == prediction.BOX_RGB


def test_predict_refuses_a_missing_model(image, monkeypatch):
    monkeypatch.chdir(ROOT)
    done = runner.invoke(cli.app, ["predict", "--model", "./absent", str(image), "red one"])
    assert isinstance(done.exception, ModelError)
    assert done.exit_code != 0
