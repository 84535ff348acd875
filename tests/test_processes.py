"""Two processes train what one process trains: DDP and ZeRO-3 on CPUs, both methods.

`pytest -m processes` runs these alone (about a minute of CPU).
"""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.conftest import ROOT, small_values
from tests.layout import SOURCE
from vlm_r1.config import load_params
from vlm_r1.launch import launch_plan, run_plan
from vlm_r1.models.loading import load_model

pytestmark = pytest.mark.processes
PROGRAM = str(ROOT / "tests/training_process.py")
LEARNING_RATE = 1e-3
METHODS = ("sft", "grpo")


@pytest.fixture(scope="module")
def trained(small_root, tmp_path_factory):
    """Trains both methods on so many processes, once a module; gives the folder with models/."""
    folders = {}

    def train(processes: int, deepspeed: str | None):
        if (processes, deepspeed) not in folders:
            root = tmp_path_factory.mktemp("processes")
            (root / "data").symlink_to(small_root / "data")
            (root / "models").mkdir()
            (root / "models/base").symlink_to(small_root / "models/base")
            file = root / "params.yaml"
            file.write_text(yaml.safe_dump(values_for(processes, deepspeed)))
            launch = load_params(file).launch
            program = [PROGRAM, str(root), str(file), *METHODS]
            assert run_plan(launch_plan(launch, program, deepspeed=deepspeed is not None)) == 0
            folders[processes, deepspeed] = root
        return folders[processes, deepspeed]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{SOURCE}:{ROOT}")
        yield train


def values_for(processes: int, deepspeed: str | None) -> dict:
    """Equal steps: 2 prompts, for GRPO 4 completions each, shared out evenly."""
    values = small_values()
    values["launch"] |= {"device": "cpu", "processes_per_node": processes}
    values["train"]["deepspeed"] = deepspeed
    values["sft"] |= {"micro_batch": 2 // processes, "learning_rate": LEARNING_RATE}
    values["grpo"] |= {"micro_batch": 8 // processes, "learning_rate": LEARNING_RATE}
    return values


def weights(root, method):
    return load_file(root / f"models/{method}/checkpoint-2/model.safetensors")


def logged(root, method):
    lines = (root / f"models/{method}/training_log.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "loss" in row]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("deepspeed", [None, "zero3"], ids=["ddp", "zero3"])
def test_two_processes_train_what_one_trains(trained, small_root, deepspeed, method):
    one, two = trained(1, None), trained(2, deepspeed)
    assert len(logged(one, method)) == 2
    for a, b in zip(logged(one, method), logged(two, method), strict=True):
        shared = {"loss", "grad_norm", "num_tokens", "reward", "kl"} & set(a)
        assert {name: b[name] for name in shared} == pytest.approx(
            {name: a[name] for name in shared}, rel=1e-4, abs=1e-5
        )
    base = load_file(small_root / "models/base/model.safetensors")
    a, b = weights(one, method), weights(two, method)
    assert a.keys() == b.keys() == base.keys()
    moved = sum((a[name] - base[name]).square().sum() for name in base).sqrt()
    apart = sum((a[name] - b[name]).square().sum() for name in base).sqrt()
    assert moved > LEARNING_RATE  # at least as far as one weight goes in one step
    assert apart / moved < 1e-3


@pytest.mark.parametrize("deepspeed", [None, "zero3"])
@pytest.mark.parametrize("method", METHODS)
def test_the_flops_of_processes_are_added_up(trained, deepspeed, method):
    """Within 15 percent: each process pads its own rows, to their longest."""
    one, two = (
        json.loads((trained(*how) / f"models/{method}/cost.json").read_text())["flops"]
        for how in ((1, None), (2, deepspeed))
    )
    assert two == pytest.approx(one, rel=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_zero3_leaves_checkpoints_that_open(trained, method):
    root = trained(2, "zero3")
    folder = root / f"models/{method}/checkpoint-2"
    model = load_model(folder, load_params(root / "params.yaml").task)
    saved = weights(root, method)
    embedding = model.get_input_embeddings().weight
    assert torch.equal(embedding, saved["model.embed_tokens.weight"])
    assert (folder / "contract.json").exists()
    assert {path.name for path in (root / "models").iterdir()} == {"base", *METHODS}  # no .part
    assert json.loads((root / f"models/{method}/cost.json").read_text())["prompts"] == 4


def test_a_stage_that_asks_for_two_processes_trains_on_two(small_root, tmp_path):
    """`vlm-r1 stage sft` as dvc.yaml calls it, with MLflow and no script."""
    (tmp_path / "data").symlink_to(small_root / "data")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(small_root / "models/base")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values_for(2, None)))
    done = subprocess.run(
        [sys.executable, "-m", "vlm_r1.cli", "stage", "sft"],
        cwd=tmp_path,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--nproc-per-node=2" in done.stderr
    assert (tmp_path / "models/sft/checkpoint-2/contract.json").exists()
    assert done.stderr.count("step 2/2  loss") == 1


def child_environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    return {**kept, "PYTHONPATH": f"{SOURCE}:{ROOT}", "OMP_NUM_THREADS": "1"}
