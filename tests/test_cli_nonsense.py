"""Every option and argument of every command, given nonsense: an error message, never a traceback.

The cases are made from the command tree, so that a new option is covered without a new test.
Commands run for real as far as their input lets them; only what would start a training or draw
images is replaced.
"""

import json
import shutil

import pytest
import typer
from PIL import Image

from tests.conftest import ROOT
from tests.dataset_files import vlm_r1_row
from vlm_r1.cli import main as cli

NONSENSE = ["banana", "folder", "", "-1", "0", "x/y", "a=b", "nan", "inf", "empty.json"]
NOWHERE = "http://127.0.0.1:9"  # refuses connections at once
REFUSALS = {1, 2, 75}  # bad input, wrong usage, try again later
MAY_FIT = {  # where some of this is no nonsense: names of new files, numbers, free text
    ("compare", "--flips"),
    ("convert", "--image-root"),
    ("convert", "--out"),
    ("convert", "--split"),
    ("launch", "--node-rank"),
    ("plan", "--gpu-memory-gib"),
    *(("validate", name) for name in ("records", "--out", "--image-root")),
}
# What a command is given besides the nonsense, so that it gets as far as it can.
GIVEN = {
    "fetch": {"names": "refgta", "--mirror": NOWHERE},
    "convert": {"source": "rows.json", "--to": "records", "--out": "out.parquet"},
    "validate": {"records": "empty.json", "--image-root": ".", "--out": "out"},
    "launch": {"--method": "sft"},
    "score": {"logs": "log.json"},
    "compare": {"a": "log.json", "b": "log.json"},
    "predict": {"image": "image.png", "expression": "red one", "--model": "folder"},
    "prefetch": {"method": "sft"},
    "export lmms-eval": {"--out": "out"},
    "report-logs": {"logs": "folder", "--out": "out"},
    "stage unpack": {"source": "refgta"},
    "stage version": {"dataset": "street_test"},
    "stage evaluate": {"method": "sft"},
    "stage search": {"method": "sft"},
    "stage candidate": {"method": "sft", "learning_rate": "1e-4"},
}


def commands(group, path=()):
    """(path, command) of every command that is no group."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


TREE = dict(commands(typer.main.get_command(cli.app)))


def command_line(path: str, given: dict[str, str]) -> list[str]:
    """The words of a command, with options and arguments by name."""
    options = [f"{name}={value}" for name, value in given.items() if name.startswith("-")]
    named = [p.opts[0] for p in TREE[path].params if p.param_type_name == "argument"]
    arguments = [given[name] for name in named if name in given]
    return [*path.split(), *options, *(["--", *arguments] if arguments else [])]


@pytest.fixture(params=["without params.yaml", "with params.yaml"])
def values(request, tmp_path, monkeypatch):
    """Works in a folder of files that are mostly no data; gives the values to try there."""
    if request.param == "with params.yaml":
        shutil.copy(ROOT / "params.yaml", tmp_path)
        (tmp_path / "models/base").mkdir(parents=True)
        shutil.copy(ROOT / "models/base/config.json", tmp_path / "models/base")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.json").touch()
    row = vlm_r1_row(1, image="image.png")
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    log = {"question": "q", "ground_truth": [0, 0, 5, 5], "model_output": "[0, 0, 5, 5]"}
    log |= {"extracted_answer": [0, 0, 5, 5], "correct": 1}
    (tmp_path / "log.json").write_text(json.dumps({"accuracy": 100, "results": [log]}))
    Image.effect_noise((60, 40), 100).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HTTPS_PROXY", NOWHERE)
    monkeypatch.setattr("vlm_r1.launch.run_plan", lambda plan: 0)
    monkeypatch.setattr("vlm_r1.stages.draw.run", lambda *_: None)
    monkeypatch.setattr("vlm_r1.stages.base.run", lambda *_: None)
    return NONSENSE if request.param == "with params.yaml" else NONSENSE[:3]


def run(arguments: list[str], capsys) -> tuple[int, list[str]]:
    """Exit code, and the lines on stderr."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return ended.value.code or 0, capsys.readouterr().err.splitlines()


def fault_of(path: str, name: str, code: int, lines: list[str]) -> str | None:
    """What is wrong with how a command ended; None if it was as documented."""
    if (path, name) in MAY_FIT and code in (0, 1):
        return None
    if code not in REFUSALS:
        return f"exit code {code}"
    errors = [line for line in lines if line.startswith("error: ")]
    if len(errors) != 1:
        return f"{len(errors)} lines of errors"
    if code == 2 and name not in errors[0]:
        return f"{errors[0]!r} does not name {name}"
    return None


@pytest.mark.parametrize("path", TREE)
def test_nonsense_is_refused_by_name(path, values, capsys):
    faults = []
    for parameter in TREE[path].params:
        name = parameter.opts[0]
        tried = NONSENSE[:1] if getattr(parameter, "is_flag", False) else values
        for value in tried:
            line = command_line(path, GIVEN.get(path, {}) | {name: value})
            if fault := fault_of(path, name, *run(line, capsys)):
                faults.append((line, fault))
    assert faults == []


@pytest.mark.parametrize("option", ["--verbose=banana", "--quiet=banana", "--banana", "-b"])
def test_nonsense_before_the_command_is_refused_by_name(option, capsys):
    code, lines = run([option, "sources"], capsys)
    assert code == 2
    assert option.split("=")[0] in lines[0]
    assert lines[0].startswith("error: ")


@pytest.mark.parametrize("path", TREE)
def test_unknown_option_is_refused_by_every_command(path, capsys):
    code, lines = run([*path.split(), "--banana"], capsys)
    assert (code, lines[0]) == (2, "error: No such option: --banana")


def test_the_tree_is_seen():
    assert {"plan", "prefetch", "report-logs", "stage prepare"} <= set(TREE)
    assert set(GIVEN) <= set(TREE)
