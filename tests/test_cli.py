"""The command line as a user meets it: help, output, errors, exit codes, log level."""

import json
import re
import subprocess
import sys

import pytest
from PIL import Image
from typer import BadParameter
from typer.testing import CliRunner

from tests.conftest import ROOT
from vlm_r1.cli import main as cli
from vlm_r1.cli.options import ImageSize, parse_image_size
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
                *("Pipeline", "config", "stage"),
                *("Data", "sources", "fetch", "convert", "validate"),
                *("Training", "launch", "doctor", "plan"),
                *("Evaluation", "score", "compare", "predict", "prefetch"),
                *("Report and tracking", "report-logs", "track"),
                *("--verbose", "--quiet"),
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
        (["report-logs"], ["logs", "--id", "--ood", "--out", "Example"]),
        (["prefetch"], ["--watch", "--device", "--patience-s", "--seed", "Example"]),
        (["launch"], ["--profile", "--method", "--dry-run", "--json", "--node-rank", "Example"]),
        (["doctor"], ["--profile", "--json", "Example"]),
        (["plan"], ["--profile", "--gpus", "--gpu-memory-gib", "--json", "Example"]),
        (["stage"], ["draw", "prepare", "base", "sft", "grpo", "evaluate", "prompts", "report"]),
        (["stage"], ["register", "unpack", "version", "search", "candidate"]),
    ],
)
def test_help_teaches(command, taught):
    text = runner.invoke(cli.app, [*command, "--help"], env={"COLUMNS": "200"}).output
    assert all(word in text for word in taught)


def test_sources_are_listed_as_text_and_as_json():
    shown = runner.invoke(cli.app, ["sources"]).output
    lines = runner.invoke(cli.app, ["sources", "--json"]).output.splitlines()
    listed = {source["name"]: source for source in map(json.loads, lines)}
    assert len(listed) == 9
    for name, source in listed.items():
        assert re.search(rf"^{name}  \(.*\)\n  address  {re.escape(source['url'])}$", shown, re.M)
    assert listed["train2014"]["size_bytes"] == 13_510_573_713
    assert listed["refgta"]["sha256"] is None
    assert listed["refer_refcocop"]["file"] == "refer_refcocop.zip"


def test_unknown_source_is_refused_with_the_known_names():
    done = vlm_r1("fetch", "coco")
    assert done.returncode == 1
    assert done.stderr.startswith("error: got the source 'coco'\n  need: one of train2014, ")


def test_config_prints_the_resolved_parameters():
    done = vlm_r1("config")
    assert done.returncode == 0
    assert "num_generations: 8" in done.stdout


def test_misspelled_key_is_an_error_of_four_lines(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("  beta:", "  betta:"))
    done = vlm_r1("config", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "error", "  need", "  because", "  do",
    ]  # fmt: skip


def test_score_prints_json(tmp_path):
    log = tmp_path / "log.json"
    log.write_text(json.dumps(LOG))
    scores = json.loads(runner.invoke(cli.app, ["score", str(log), "--json"]).output)
    assert scores["n"] == 2
    assert scores["accuracy"] == scores["stated_accuracy"] == 50.0
    assert scores["mean_iou"] == 0.5
    assert scores["parse_rate"] == 0.5


def test_score_prints_text_and_reads_a_log_by_its_options(tmp_path):
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


def test_empty_log_is_an_error(tmp_path):
    (tmp_path / "log.json").write_text("")
    done = vlm_r1("score", "log.json", "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: got log.json: the file is empty\n  need: ")


def test_predict_prints_json_with_or_without_a_box(small_root, image, monkeypatch):
    monkeypatch.chdir(ROOT)
    model = str(small_root / "models/base")
    done = runner.invoke(cli.app, ["predict", "--model", model, str(image), "red one"])
    assert set(json.loads(done.stdout)) == {"box", "reason", "completion"}


def test_predict_draws_the_box(image, tmp_path, monkeypatch):
    """The model's completion is replaced, everything around it is real."""
    from vlm_r1.config import load_params
    from vlm_r1.inference import predict as prediction
    from vlm_r1.inference.generate import Completion

    monkeypatch.setattr(prediction, "load_model", lambda *_: None)
    monkeypatch.setattr(prediction, "load_processor", lambda *_: None)
    said = [Completion("<answer>[42, 28, 70, 42]</answer>", (56, 84))]
    monkeypatch.setattr(prediction, "generate_completions", lambda *_, **__: said)
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scor"], "error: No such command 'scor'. Did you mean 'score', 'doctor'?"),
        (["stage", "evalute"], "error: No such command 'evalute'. Did you mean 'evaluate'?"),
        (["score", "--prset", "x"], "error: No such option: --prset. Did you mean '--preset'?"),
        (["launch"], "error: Missing option '--method'. Choose from: sft, grpo"),
        (
            ["launch", "--method", "gpro"],
            "error: Invalid value for '--method': 'gpro' is not one of 'sft', 'grpo'.",
        ),
        (
            ["plan", "--image", "banana"],
            "error: Invalid value for '--image': 'banana' is not WIDTHxHEIGHT in pixels, "
            "e.g. 640x480",
        ),
        (
            ["config", "--params", "a.yaml", "--profile", "b"],
            "error: Invalid value for --profile: use either --params or --profile",
        ),
        (
            ["-v", "-q", "config"],
            "error: Invalid value for --quiet: use either --verbose or --quiet",
        ),
    ],
)
def test_usage_error_is_one_line_then_usage_and_where_help_is(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == message
    assert [line.split(":")[0] for line in shown[1:]] == ["  usage", "  help"]
    assert shown[2].endswith(" --help")


def test_help_has_a_short_option_everywhere():
    for command in ([], ["plan"], ["stage"], ["stage", "draw"]):
        shown = [runner.invoke(cli.app, [*command, name]) for name in ("-h", "--help")]
        assert shown[0].output == shown[1].output
        assert {done.exit_code for done in shown} == {0}


def test_group_without_a_command_shows_its_help(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["stage"])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert "prepare" in out + err
    assert "error:" not in err


PROGRAM = """
import logging
from vlm_r1.cli.main import app, main

@app.command()
def say() -> None:
    for name in ("vlm_r1.training", "mlflow"):
        for level in ("debug", "info", "warning", "error"):
            getattr(logging.getLogger(name), level)("%s speaks", name)

main()
"""


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], ["vlm_r1", "warning: vlm_r1", "error: vlm_r1", "warning: mlflow", "error: mlflow"]),
        (["--quiet"], ["warning: vlm_r1", "error: vlm_r1", "warning: mlflow", "error: mlflow"]),
        (
            ["--verbose"],
            [
                *("debug: vlm_r1", "vlm_r1", "warning: vlm_r1", "error: vlm_r1"),
                *("debug: mlflow", "info: mlflow", "warning: mlflow", "error: mlflow"),
            ],
        ),
    ],
)
def test_log_lines_show_their_level_and_options_choose_which(options, shown):
    command = [sys.executable, "-c", PROGRAM, *options, "say"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.endswith("speaks")]
    starts = [re.match(r"(\w+: )?(vlm_r1|mlflow)", line)[0] for line in lines]
    assert starts == shown
    assert all("mlflow: mlflow speaks" in line for line in lines if "vlm_r1" not in line)


@pytest.mark.parametrize("text", ["banana", "640", "x480", "640x", "0x480", "-1x5", "1x2x3", ""])
def test_image_size_is_refused_unless_it_is_two_positive_numbers(text):
    with pytest.raises(BadParameter, match="is not WIDTHxHEIGHT"):
        parse_image_size(text)


def test_image_size_is_width_then_height():
    assert parse_image_size("640x480") == ImageSize(width=640, height=480)
