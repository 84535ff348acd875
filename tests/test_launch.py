"""Launching: what a profile will run, and that nothing of it is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from tests.conftest import ROOT, small_values
from tests.layout import SOURCE
from vlm_r1.cli import main as cli
from vlm_r1.config import load_params, parse_params, profile_file
from vlm_r1.config.deepspeed import deepspeed_config, is_offloaded, zero_stage
from vlm_r1.errors import ConfigError
from vlm_r1.launch import candidate_plan, evaluation_plan, require_world, training_plan
from vlm_r1.nodes import Meeting
from vlm_r1.training.dry_run import resolved_arguments

PATIENCE_S = 60


def profile(name):
    return load_params(profile_file(name, ROOT / "profiles"))


def params_with(**launch):
    values = small_values()
    values["launch"] |= launch
    return parse_params(values, "test")


def test_one_process_needs_no_torchrun():
    plan = training_plan(params_with(), "sft", ROOT / "params.yaml")
    assert plan.command[:3] == [sys.executable, "-m", "vlm_r1.cli"]
    assert plan.meeting is None


def test_one_node_stands_alone():
    plan = training_plan(profile("vlm-r1-mar2025"), "grpo", ROOT / "profiles/x.yaml")
    assert plan.command[0].endswith("/torchrun")
    assert plan.command[1:4] == ["--nnodes=1", "--nproc-per-node=8", "--standalone"]
    assert plan.command[4:] == [
        *("-m", "vlm_r1.cli", "stage", "grpo"),
        *("--params", str(ROOT / "profiles/x.yaml")),
    ]


def test_several_nodes_meet_at_the_endpoint_with_fixed_ranks():
    params = params_with(nodes=4, processes_per_node=8, endpoint="gpu0:29500", id="seven")
    plan = training_plan(params, "sft", ROOT / "params.yaml", node_rank=3)
    assert plan.command[1:7] == [
        *("--nnodes=4", "--nproc-per-node=8", "--node-rank=3", "--rdzv-backend=static"),
        *("--rdzv-endpoint=gpu0:29500", "--rdzv-conf=timeout=600"),
    ]
    assert plan.meeting == Meeting(Path(".cache/nodes/seven-sft.json"), 3, 86_400)
    with pytest.raises(ConfigError, match=r"got node rank 4\nneed 0 to 3"):
        training_plan(params, "sft", ROOT / "params.yaml", node_rank=4)


@pytest.mark.parametrize(
    ("given", "seen"), [(None, "0"), ("2,3", "2"), ("GPU-7a,GPU-7b", "GPU-7a"), ("", "")]
)
def test_a_process_alone_on_its_node_sees_one_gpu(monkeypatch, given, seen):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    for plan in (
        training_plan(profile("lora-1gpu"), "grpo", ROOT / "params.yaml"),
        evaluation_plan(profile("lora-1gpu"), "grpo", ROOT / "params.yaml"),
    ):
        assert plan.environment == {"CUDA_VISIBLE_DEVICES": seen}
    assert training_plan(profile("vlm-r1-mar2025"), "sft", ROOT / "params.yaml").environment == {}


def test_a_stage_sees_one_gpu_before_it_loads_torch(tmp_path):
    """`vlm-r1 stage sft` as DVC runs it, on a host with four GPUs (mocked): n_gpu is 1."""
    program = f"""
import os, sys
from typer.testing import CliRunner
from vlm_r1.cli import main
sys.modules["vlm_r1.stages.sft"] = stage = type(sys)("sft")

def run(*_):
    assert "torch" not in sys.modules
    import torch
    from transformers import TrainingArguments
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))
    torch.cuda.set_device = lambda device: None
    print("n_gpu", TrainingArguments({str(tmp_path)!r}, bf16=False).n_gpu)

stage.run = run
os.environ["CUDA_VISIBLE_DEVICES"] = "0,1,2,3"
done = CliRunner().invoke(main.app, ["stage", "sft"])
print(done.output, done.exception)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "n_gpu 1\n" in done.stdout, done.stdout + done.stderr


def test_a_search_on_several_nodes_is_refused():
    params = params_with(nodes=2, endpoint="gpu0:29500")
    with pytest.raises(ConfigError, match=r"a search on 2 nodes"):
        candidate_plan(params, "sft", 1e-4, ROOT / "params.yaml")


def test_a_node_evaluates_alone_on_all_its_processes():
    params = params_with(nodes=4, processes_per_node=8, endpoint="gpu0:29500")
    plan = evaluation_plan(params, "sft", ROOT / "params.yaml", seed=43)
    assert plan.command[1:4] == ["--nnodes=1", "--nproc-per-node=8", "--standalone"]
    assert plan.command[6:9] == ["stage", "evaluate", "sft"]
    assert plan.command[-2:] == ["--seed", "43"]


def test_several_nodes_without_an_endpoint_are_refused():
    with pytest.raises(ConfigError, match="2 nodes need an endpoint"):
        params_with(nodes=2)


def test_cpus_are_told_to_deepspeed_and_kept_from_spinning():
    plan = training_plan(profile("smoke-2proc"), "sft", ROOT / "params.yaml")
    assert plan.environment == {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
    }


@pytest.mark.parametrize(
    ("name", "stage", "offloaded"),
    [(None, 0, False), ("zero2", 2, False), ("zero3", 3, False), ("zero3_offload", 3, True)],
)
def test_deepspeed_by_name(name, stage, offloaded):
    config = deepspeed_config(name)
    assert zero_stage(config) == stage
    assert is_offloaded(config, "optimizer") == is_offloaded(config, "param") == offloaded


def test_deepspeed_by_path_and_refusals(tmp_path):
    own = tmp_path / "own.json"
    own.write_text('{"zero_optimization": {"stage": 1}}')
    assert zero_stage(deepspeed_config(str(own))) == 1
    with pytest.raises(ConfigError, match="need zero2, zero3, zero3_offload, or the path"):
        deepspeed_config("zero4")


def test_a_world_of_another_size_than_the_params_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="got 4 processes\nneed 2"):
        require_world(params_with(processes_per_node=2).launch)


def test_a_profile_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigError, match=r"(?s)vlm-r1-feb2026.*lora-1gpu.*vlm-r1-feb2025"):
        profile("vlm-r1-feb2026")


def test_a_dry_run_shows_all_as_one_object():
    command = ["launch", "--profile", "smoke-2proc", "--method", "grpo", "--dry-run", "--json"]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert set(shown) == {"command", "environment", "deepspeed", "trainer_arguments"}
    assert shown["deepspeed"]["zero_optimization"]["stage"] == 3
    assert shown["trainer_arguments"]["ddp_backend"] == "gloo"
    assert shown["trainer_arguments"]["use_cpu"] is True


def test_resolved_arguments_share_out_the_step(tmp_path):
    """16 prompts x 8 completions on 8 GPUs, 8 completions at once: two accumulated."""
    grpo = resolved_arguments(profile("vlm-r1-feb2025"), "grpo", tmp_path)
    assert (grpo["per_device_train_batch_size"], grpo["gradient_accumulation_steps"]) == (8, 2)
    assert grpo["generation_batch_size"] == 128
    assert grpo["use_cpu"] is False
    assert grpo["deepspeed"]["zero_optimization"]["stage"] == 3
    sft = resolved_arguments(profile("vlm-r1-feb2025"), "sft", tmp_path)
    assert (sft["per_device_train_batch_size"], sft["gradient_accumulation_steps"]) == (1, 2)


# One rank of two writes its pid; then both wait for ever, or rank 1 crashes.
WORKER = """
import os, pathlib, sys, time
from vlm_r1.processes import end_with_parent
end_with_parent()
folder, mood = pathlib.Path(sys.argv[1]), sys.argv[2]
(folder / f"rank-{os.environ['RANK']}").write_text(str(os.getpid()))
while len(list(folder.glob("rank-*"))) < 2:
    time.sleep(0.02)
if mood == "crash" and os.environ["RANK"] == "1":
    sys.exit(3)
time.sleep(600)
"""
LAUNCHER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children ignore it
from vlm_r1.config.training import Launch
from vlm_r1.launch import launch_plan, run_plan
one_node = {"nodes": 1, "endpoint": None, "id": "test", "vllm_server_url": ""}
limits = {f"{name}_timeout_s": 60 for name in ("start", "rendezvous", "collective")}
launch = Launch(device="cpu", processes_per_node=2, **one_node, **limits)
sys.exit(run_plan(launch_plan(launch, sys.argv[1:])))
"""


@pytest.fixture
def started(tmp_path):
    """Starts a launcher of two ranks; after the test no rank may be there."""
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    running = []

    def start(mood):
        launcher = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(worker), str(tmp_path), mood],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(launcher)
        wait_for(lambda: len(list(tmp_path.glob("rank-*"))) == 2)
        return launcher, [int(file.read_text()) for file in tmp_path.glob("rank-*")]

    yield start
    for launcher in running:
        launcher.kill()
        launcher.wait()
        launcher.stderr.close()


def wait_for(condition) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def gone(pids) -> bool:
    return not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, None)])
def test_stopping_the_launcher_ends_every_rank(started, sent, code):
    launcher, ranks = started("wait")
    launcher.send_signal(sent)
    assert launcher.wait(PATIENCE_S) != 0
    assert code in (None, launcher.returncode)
    assert gone(ranks)


def test_a_launcher_that_is_killed_leaves_no_rank_behind(started):
    launcher, ranks = started("wait")
    launcher.kill()
    wait_for(lambda: gone(ranks))


def test_a_torchrun_that_is_killed_leaves_no_rank_behind(started):
    launcher, ranks = started("wait")
    (torchrun,) = psutil.Process(launcher.pid).children()
    torchrun.kill()
    assert launcher.wait(PATIENCE_S) != 0
    wait_for(lambda: gone(ranks))


def test_the_crash_of_one_rank_ends_the_other_and_is_told(started):
    launcher, ranks = started("crash")
    assert launcher.wait(PATIENCE_S) != 0
    assert gone(ranks)
