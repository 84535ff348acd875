"""vLLM answers as transformers does: the pretrained tiny base on drawn images, on a CPU.

`make vllm` makes the environment and runs this (docs/vllm.md): some minutes on two cores.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from tests.conftest import ROOT, small_values
from tests.layout import SOURCE
from vlm_r1 import paths
from vlm_r1.config import Params, parse_params
from vlm_r1.inference.evaluator import make_evaluator
from vlm_r1.rec.results import ResultRow
from vlm_r1.stages import draw, prepare

PYTHON = os.environ.get("VLM_R1_VLLM_PYTHON")
OPERATORS = ROOT / "tests/peers/torchvision_operators"
IMAGES = 50  # of each drawn split, with two phrases each
ROWS = 3 * 2 * IMAGES  # validation, in and out of domain

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(
        PYTHON is None, reason="VLM_R1_VLLM_PYTHON names no Python with vLLM (docs/vllm.md)"
    ),
]


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """vLLM's Python; with torchvision's operators declared where it cannot be imported."""
    done = subprocess.run([PYTHON, "-c", "import torchvision"], capture_output=True, check=False)
    if done.returncode == 0:
        return Path(PYTHON)
    script = tmp_path_factory.mktemp("vllm") / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={OPERATORS} exec {PYTHON} "$@"\n')
    script.chmod(0o755)
    return script


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The drawn data, and the pretrained tiny base."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("vllm-peer")
    params = parse_params(values_with(Path("python")), "peers")
    draw.run(params, root)
    prepare.run(params, root)
    shutil.copytree(ROOT / "models/base", root / "models/base")
    return root


def values_with(python: Path, **evaluate: object) -> dict:
    """The laptop's parameters with a few images, evaluated by vLLM."""
    values = small_values()
    for name in ("studio_val", "studio_test", "street_test"):
        values["draw"][name]["images"] = IMAGES
    values["evaluate"] |= {"batch_tokens": 16_384, "max_new_tokens": 72, "engine": "vllm"}
    values["evaluate"]["vllm"] |= {"python": str(python), "start_timeout_s": 500.0}
    values["evaluate"] |= evaluate
    return values


def rows_of(params: Params, root: Path, method: str) -> list[ResultRow]:
    """Of an evaluation of the base on all datasets, under a method's prompt."""
    evaluator = make_evaluator(params, root, method, device="cpu")
    results = evaluator.evaluate_checkpoint(0, root / "models/base")
    return [row for one in results for row in one.result.results]


def agreement(theirs: list[ResultRow], ours: list[ResultRow]) -> dict[str, int]:
    """Of how many rows each field is equal."""
    assert len(theirs) == len(ours) == ROWS
    fields = ("model_output", "new_tokens", "cut_off", "input_size", "extracted_answer", "correct")
    pairs = list(zip(theirs, ours, strict=True))
    return {
        field: sum(getattr(a, field) == getattr(b, field) for a, b in pairs) for field in fields
    }


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_in_float32_texts_and_counts_are_equal(python, root, method):
    values = values_with(python)
    theirs = rows_of(parse_params(values, "vllm"), root, method)
    values["evaluate"]["engine"] = "transformers"
    ours = rows_of(parse_params(values, "transformers"), root, method)
    found = agreement(theirs, ours)
    print(method, found, "of", ROWS)
    assert found["input_size"] == ROWS
    assert min(found.values()) >= 0.99 * ROWS


def test_in_bfloat16_the_gate_lets_vllm_pass(python, root):
    values = values_with(python)
    values["task"]["dtype"] = "bfloat16"
    theirs = rows_of(parse_params(values, "vllm"), root, "grpo")
    values["evaluate"]["engine"] = "transformers"
    found = agreement(theirs, rows_of(parse_params(values, "transformers"), root, "grpo"))
    print("bfloat16", found, "of", ROWS)
    assert found["correct"] >= 0.95 * ROWS


def test_the_servers_processor_is_held_to_our_pixel_budget(python, root):
    values = values_with(python)
    values["task"] |= {"min_pixels": 784, "max_pixels": 3136}  # the drawn images are larger
    theirs = rows_of(parse_params(values, "vllm"), root, "sft")
    assert {row.input_size[0] * row.input_size[1] <= 3136 for row in theirs} == {True}
    values["evaluate"]["engine"] = "transformers"
    found = agreement(theirs, rows_of(parse_params(values, "transformers"), root, "sft"))
    print("a quarter of the pixels", found, "of", ROWS)
    assert min(found.values()) >= 0.99 * ROWS


def test_sampled_answers_are_the_same_again_and_differ_between_repeats(python, root, monkeypatch):
    params = parse_params(values_with(python, repeats=2), "sampled")
    texts = []
    for attempt in ("first", "second"):
        completions = root / f"completions-{attempt}"
        monkeypatch.setattr(paths, "COMPLETIONS", completions)
        rows_of(params, root, "sft")
        files = sorted(completions.glob("*/rank-0.jsonl"))
        texts.append({file.parent.name: sorted(file.read_text().splitlines()) for file in files})
    same = [texts[0][name] == texts[1][name] for name in texts[0]]
    print("sampled: equal files", sum(same), "of", len(same))
    assert len(same) == 2 + 3 * 3  # the gate; greedy and two repeats for each dataset
    assert len({tuple(lines) for lines in texts[0].values()}) >= 1 + 3 * 3
    assert texts[0] == texts[1]


@pytest.mark.parametrize("when", ["loading", "ready"])
def test_nothing_is_left_of_a_server_whose_stage_is_killed(python, root, tmp_path, when):
    log = tmp_path / "v.log"
    program = f"""
from pathlib import Path
from vlm_r1.config import parse_params
from tests.test_peers_vllm import values_with
from vlm_r1.inference.engines.vllm_environment import server_arguments
from vlm_r1.inference.engines.vllm_server import vllm_server
task = parse_params(values_with(Path("python")), "t").task
words = server_arguments(Path({str(root / "models/base")!r}), task, 0.9, 1)
with vllm_server(Path({str(python)!r}), words, Path({str(log)!r}), {{}}, 500):
    print("ready", flush=True)
    input()
"""
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{ROOT}"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdin=pipe, stdout=pipe
    ) as stage:
        if when == "ready":
            assert stage.stdout.readline() == b"ready\n"
        else:  # until the engine's own process has begun to load
            wait_for(lambda: len(psutil.Process(stage.pid).children(recursive=True)) > 1, 300)
        family = psutil.Process(stage.pid).children(recursive=True)
        print(when, [" ".join(one.cmdline())[:60] for one in family])
        assert len(family) > 1
        stage.send_signal(signal.SIGKILL)
    wait_for(lambda: not psutil.wait_procs(family, timeout=0.1)[1], 60)


def wait_for(is_true, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
