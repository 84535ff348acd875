"""`make gpu-check` without a GPU: its table, what it shows as not run, and what needs no GPU."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.gpu import attention, checks, project
from benchmarks.gpu.outcome import NotRun, Outcome, machine_text, report, run_check, table
from benchmarks.gpu.rewards import even_tokens
from tests.conftest import ROOT
from tests.layout import SOURCE
from vlm_r1.preflight.memory import GIB
from vlm_r1.preflight.plan import make_plan

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="make gpu-check runs here")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("gpu-check")
    project.make_project(root, "cpu")
    return checks.Bench(root, project.make_params("cpu"), project.SIZE_PX["cpu"], gpus=0)


def refuse():
    raise NotRun("no CUDA device")


def crash():
    raise RuntimeError("CUDA error: out of memory\nand much more")


def test_the_table_has_a_line_a_check_and_one_that_raises_has_failed():
    functions = {"a": lambda: Outcome("passed", "1.5 | 2"), "b": refuse, "c": crash}
    outcomes = {name: run_check(function) for name, function in functions.items()}
    assert table(outcomes).splitlines() == [
        "| check | verdict | figure |",
        "|---|---|---|",
        r"| a | passed | 1.5 \| 2 |",
        "| b | not run | no CUDA device |",
        "| c | failed | RuntimeError: CUDA error: out of memory |",
    ]


def test_the_report_names_the_machine():
    found = report({"a": Outcome("passed", "1")}, "NVIDIA H100", 61.4)
    assert json.loads(json.dumps(found)) == found
    assert found["checks"] == {"a": {"verdict": "passed", "figure": "1"}}
    assert machine_text(found).startswith(f"NVIDIA H100, Python {sys.version.split()[0]}, torch ")
    assert machine_text(found).endswith("; 61 s")


def test_without_a_gpu_the_checks_that_need_one_are_not_run(bench):
    needing = [
        "one process on a host of several GPUs",
        "flash attention against eager",
        "SFT memory against plan",
        "GRPO memory against plan",
    ]
    found = {name: run_check(checks.all_checks(bench)[name]) for name in needing}
    assert [outcome.verdict for outcome in found.values()] == ["not run"] * 4
    assert found[needing[0]].figure == "the host has 0 GPUs; needs 2"
    assert bench.done == {}  # nothing was trained for it


def test_attention_and_sft_steps_pass_on_a_cpu(bench):
    functions = checks.all_checks(bench)
    for name in ("sdpa attention against eager", "bf16 SFT steps"):
        outcome = run_check(functions[name])
        assert outcome.verdict == "passed", outcome


def test_in_32_bits_sdpa_is_eager(bench):
    """So that what the check measures in 16 bits is rounding."""
    task = bench.params.task.model_copy(update={"dtype": "float32"})
    inputs = attention.prompts_with_padding(task, bench.root, bench.params)
    eager, sdpa = (
        attention.passes(
            task.model_copy(update={"attention": name}), bench.root, inputs, bench.params
        )
        for name in ("eager", "sdpa")
    )
    for what, true in eager.items():
        assert torch.dist(sdpa[what], true) < 1e-5 * true.norm()


@pytest.mark.parametrize("gib", [24, 40, 80])
def test_the_model_for_a_gpu_has_half_a_billion_to_three_billion_parameters_and_fits(gib, tmp_path):
    tokenizer = AutoProcessor.from_pretrained(ROOT / "models/base").tokenizer
    config = project.scaled_config(tokenizer, gib * GIB)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    assert 0.5e9 < model.num_parameters() < 3e9
    config.save_pretrained(tmp_path / "models/base")
    params, size = project.make_params("cuda"), project.SIZE_PX["cuda"]
    for method in ("sft", "grpo"):
        assert make_plan(params, tmp_path, method, size).memory.peak < 0.9 * gib * GIB
    assert config.image_token_id == tokenizer.convert_tokens_to_ids("<|image_pad|>")


def test_the_reward_tells_random_answers_apart():
    assert even_tokens([], [], [[2, 4], [1, 2, 3, 5], []]) == [1.0, 0.25, 0.0]


PROGRAM = """
import sys
for tool in ("dvc", "prefect", "mlflow", "great_expectations", "deepspeed"):
    sys.modules[tool] = None  # importing it raises ImportError
from benchmarks.gpu import checks, project
"""


def test_it_needs_no_pipeline_tool():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": f"{SOURCE}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
