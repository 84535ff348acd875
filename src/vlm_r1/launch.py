"""Starts a program on as many processes as the params ask for, with torchrun if more than one.

Training and evaluation both start here, so `dvc repro` needs no options for several processes.
Loads no torch, so the process that waits for the others uses little memory.
"""

import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_r1 import paths
from vlm_r1.config import Params
from vlm_r1.config.training import Launch
from vlm_r1.errors import ConfigError
from vlm_r1.nodes import Meeting, meet
from vlm_r1.processes import end_with_parent, process_group

logger = logging.getLogger(__name__)

CLI = ["-m", "vlm_r1.cli"]
WORKER_MARK = "TORCHELASTIC_RUN_ID"  # torchrun sets it in every process it starts
RENDEZVOUS_ID = "PET_RDZV_ID"  # torchrun's --rdzv-id as a variable


@dataclass(frozen=True)
class LaunchPlan:
    """The command to run, and the variables to add to its environment.

    Attributes:
        meeting: where several nodes meet before they start it; None for one node.
    """

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    meeting: Meeting | None = None


def training_plan(
    params: Params, method: str, params_file: Path, node_rank: int = 0, seed: int | None = None
) -> LaunchPlan:
    """How this node trains `method` with the parameters in `params_file`.

    Args:
        seed: one of experiment.seeds, for a further training run.

    Raises:
        ConfigError: there is no such node.
    """
    program, run = _stage([method], params_file, seed), params.run_name(method, seed)
    return launch_plan(params.launch, program, node_rank, params.train.deepspeed is not None, run)


def candidate_plan(
    params: Params, method: str, learning_rate: float, params_file: Path
) -> LaunchPlan:
    """How a candidate of the search is trained and scored, on the processes of a training.

    Raises:
        ConfigError: training runs on several nodes.
    """
    if params.launch.nodes > 1:
        raise ConfigError(
            got=f"a search on {params.launch.nodes} nodes",
            need="launch.nodes: 1 for a search",
            because="only node 0 would run the candidates, and wait for the others",
            do="search on one node, write the result into params.yaml, then train on all nodes",
        )
    program = _stage(["candidate", method, str(learning_rate)], params_file, None)
    return launch_plan(params.launch, program, deepspeed=params.train.deepspeed is not None)


def evaluation_plan(
    params: Params, method: str, params_file: Path, seed: int | None = None
) -> LaunchPlan:
    """How `method` is evaluated: on all processes of this node, and on no other node."""
    program = _stage(["evaluate", method], params_file, seed)
    return launch_plan(params.launch.model_copy(update={"nodes": 1}), program)


def _stage(words: list[str], params_file: Path, seed: int | None) -> list[str]:
    further = [] if seed is None else ["--seed", str(seed)]
    return [*CLI, "stage", *words, "--params", str(params_file), *further]


def launch_plan(
    launch: Launch,
    program: list[str],
    node_rank: int = 0,
    deepspeed: bool = False,
    run: str = "run",
) -> LaunchPlan:
    """How this node starts its processes of `program` (Python's arguments: a file, or -m module).

    Nodes have fixed ranks, so that rank 0, which writes the files, is on the node that DVC runs on.

    Args:
        run: what is run; several nodes meet by this name.

    Raises:
        ConfigError: there is no such node.
    """
    if node_rank >= launch.nodes:
        raise ConfigError(
            got=f"node rank {node_rank}",
            need=f"0 to {launch.nodes - 1}",
            because=f"launch.nodes is {launch.nodes}",
            do="number the nodes from 0, or raise launch.nodes",
        )
    environment = device_environment(launch, deepspeed)
    if launch.processes == 1:
        return LaunchPlan([sys.executable, *program], environment)
    torchrun = [str(Path(sys.executable).with_name("torchrun"))]
    torchrun += [f"--nnodes={launch.nodes}", f"--nproc-per-node={launch.processes_per_node}"]
    if launch.nodes == 1:
        return LaunchPlan([*torchrun, "--standalone", *program], environment)
    torchrun += [f"--node-rank={node_rank}", "--rdzv-backend=static"]
    torchrun += [f"--rdzv-endpoint={launch.endpoint}"]
    torchrun += [f"--rdzv-conf=timeout={launch.rendezvous_timeout_s}"]
    file = paths.NODES / f"{launch.id}-{run}.json"
    meeting = Meeting(file, node_rank, launch.start_timeout_s)
    return LaunchPlan([*torchrun, *program], environment, meeting)


def device_environment(launch: Launch, deepspeed: bool = False) -> dict[str, str]:
    """Variables that decide which devices a process sees; set them before it loads torch.

    A process that is alone on its node sees one GPU, the first of those that it was given: with
    several, transformers' Trainer wraps the model in DataParallel, which splits Qwen2.5-VL's image
    patches by rows of text and crashes.
    """
    if launch.device != "cpu":
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
        return {"CUDA_VISIBLE_DEVICES": given[0]} if launch.processes_per_node == 1 else {}
    environment = {"CUDA_VISIBLE_DEVICES": ""}
    if launch.processes > 1:
        environment["OMP_NUM_THREADS"] = "1"  # spinning threads slow each other tenfold
    if deepspeed:
        environment["DS_ACCELERATOR"] = "cpu"
    return environment


def enter(plan: LaunchPlan) -> None:
    """Take on the plan's environment: of the only process. A worker of torchrun has it already."""
    if is_worker():
        end_with_parent()
    else:
        os.environ.update(plan.environment)


def is_needed(processes: int) -> bool:
    """True if several processes are needed and this is not a torchrun worker."""
    return processes > 1 and not is_worker()


def is_worker() -> bool:
    """True if torchrun started this process."""
    return WORKER_MARK in os.environ


def plan_text(shown: dict[str, Any]) -> str:
    """A dry run as text: the shell command, then the settings of DeepSpeed and TRL."""
    command = [*_pairs(shown["environment"]), *shown["command"]]
    arguments = sorted(shown["trainer_arguments"].items())
    return "\n".join(
        [
            shlex.join(command),
            "\nDeepSpeed: " + json.dumps(shown["deepspeed"], indent=2),
            "\ntrainer arguments:",
            *(f"  {name}: {value}" for name, value in arguments if name != "deepspeed"),
        ]
    )


def run_plan(plan: LaunchPlan) -> int:
    """Run a plan to its end and return its exit code; no process of it outlives this call.

    Ctrl-C and SIGTERM end every process; if a rank crashes, torchrun ends the others.

    Raises:
        ConfigError: node 0 has not started in time.
    """
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        with _met(plan) as environment:
            logger.info("%s", " ".join([*_pairs(environment), *plan.command]))
            with process_group(
                plan.command,
                env={**os.environ, **environment},
                preexec_fn=end_with_parent,
            ) as leader:
                return leader.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


def require_world(launch: Launch) -> None:
    """Require as many processes as the params say.

    Raises:
        ConfigError: WORLD_SIZE is another number than the params'.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != launch.processes:
        raise ConfigError(
            got=f"{world} processes",
            need=f"{launch.processes}: launch.nodes x launch.processes_per_node",
            because="prompts_per_step is split by the number of processes",
            do="start training with `vlm-r1 launch` or `dvc repro`, or change launch.*",
        )


@contextmanager
def _met(plan: LaunchPlan) -> Iterator[dict[str, str]]:
    """The plan's environment; of several nodes once they have met, with the id of their meeting."""
    if plan.meeting is None:
        yield plan.environment
    else:
        with meet(plan.meeting) as run:
            yield {**plan.environment, RENDEZVOUS_ID: run}


def _pairs(environment: dict[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]


def _leave(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)
