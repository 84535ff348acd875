"""Two nodes on this machine: two torchrun groups of one process each, which meet over loopback.

They train what one node of two processes trains, with DDP and with ZeRO-3; also when one of them
dies (SIGKILL) and both are started again.
"""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.layout import SOURCE
from tests.test_processes import PROGRAM, values_for
from vlm_r1.config import load_params
from vlm_r1.launch import launch_plan, run_plan
from vlm_r1.training import resume

pytestmark = pytest.mark.processes
STEPS, PATIENCE_S = 4, 300
NODE = """
import logging, sys
from pathlib import Path
from vlm_r1.config import load_params
from vlm_r1.launch import launch_plan, run_plan
logging.basicConfig(level=logging.INFO, format="%(message)s")
rank, deepspeed, program = int(sys.argv[1]), sys.argv[2] == "True", sys.argv[3:]
launch = load_params(Path("params.yaml")).launch
sys.exit(run_plan(launch_plan(launch, program, rank, deepspeed, "trial")))
"""


@pytest.fixture
def project(small_root, tmp_path):
    """Makes a project for two processes, on one node or on two."""

    def make(name: str, nodes: int, deepspeed: str | None) -> Path:
        root = tmp_path / name
        (root / "models").mkdir(parents=True)
        (root / "data").symlink_to(small_root / "data")
        (root / "models/base").symlink_to(small_root / "models/base")
        values = values_for(2, deepspeed)
        values["train"] |= {"steps": STEPS, "checkpoints": 1}
        if nodes == 2:
            endpoint = f"127.0.0.1:{free_port()}"
            values["launch"] |= {"nodes": 2, "processes_per_node": 1, "endpoint": endpoint}
        (root / "params.yaml").write_text(yaml.safe_dump(values))
        return root

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{SOURCE}:{ROOT}")
        yield make


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def program_of(root: Path, method: str) -> list[str]:
    return [PROGRAM, str(root), str(root / "params.yaml"), method]


def train_on_one_node(root: Path, method: str) -> Path:
    params = load_params(root / "params.yaml")
    deepspeed = params.train.deepspeed is not None
    assert run_plan(launch_plan(params.launch, program_of(root, method), deepspeed=deepspeed)) == 0
    return root / "models" / method


def start_node(root: Path, rank: int, deepspeed: str | None, method: str) -> subprocess.Popen:
    command = [sys.executable, "-c", NODE, str(rank), str(deepspeed is not None)]
    with (root / f"node-{rank}.log").open("a") as log:
        return subprocess.Popen(
            [*command, *program_of(root, method)], cwd=root, stdout=log, stderr=log
        )


def logs(root: Path) -> str:
    return "".join(file.read_text() for file in sorted(root.glob("node-*.log")))


def steps_in(growing: Path) -> list[int]:
    return [line["step"] for line in resume.read_log(growing / resume.LOG)]


def kill_node(node: subprocess.Popen) -> None:
    """As if its machine had lost power: no process can say goodbye."""
    for process in [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]:
        process.kill()
    node.wait()


def weights(folder: Path) -> dict:
    return load_file(folder / f"checkpoint-{STEPS}/model.safetensors")


def assert_same_weights(folder: Path, expected: Path) -> None:
    ours, theirs = weights(folder), weights(expected)
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("deepspeed", [None, "zero3"], ids=["ddp", "zero3"])
def test_two_nodes_train_what_one_trains_also_after_one_has_died(project, deepspeed):
    one = train_on_one_node(project("one", 1, deepspeed), "sft")
    root = project("two", 2, deepspeed)
    other = start_node(root, 1, deepspeed, "sft")  # first: it waits for node 0
    zero = start_node(root, 0, deepspeed, "sft")
    growing = root / "models/sft.part"
    wait_for(lambda: max(steps_in(growing), default=0) >= 2, root)
    kill_node(other)
    assert zero.wait(PATIENCE_S) != 0, "node 0 must not go on alone"
    assert not (root / "models/sft").exists()
    nodes = [start_node(root, rank, deepspeed, "sft") for rank in (1, 0)]
    assert [node.wait(PATIENCE_S) for node in nodes] == [0, 0], logs(root)
    assert "sft.part: goes on from checkpoint-" in logs(root)
    assert_same_weights(root / "models/sft", one)
    assert list((root / ".cache/nodes").iterdir()) == []
    cost = json.loads((root / "models/sft/cost.json").read_text())
    assert cost["prompts"] == 2 * STEPS


def wait_for(condition, root: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, logs(root)
        time.sleep(0.01)
