"""Memory of a node's host: every process loads the whole model there before a GPU has its share.

Also under ZeRO-3: training/run.py loads the model before DeepSpeed's configuration is in force.
"""

from dataclasses import dataclass
from pathlib import Path

import psutil
from safetensors import safe_open

from vlm_r1.config import Method, Params
from vlm_r1.config.deepspeed import deepspeed_config, is_offloaded, zero_stage
from vlm_r1.errors import ConfigError
from vlm_r1.preflight.memory import ADAM_BYTES, GIB, MASTER_BYTES, weight_bytes

PROCESS_BYTES = GIB  # Python with torch, transformers, TRL and DeepSpeed, measured: 0.9 GiB


@dataclass(frozen=True)
class HostPlan:
    """Bytes in the memory of one node's host.

    Attributes:
        models: whole models while they are loaded, of all processes of the node.
        offloaded: weights and optimizer state that ZeRO keeps there.
        programs: the processes themselves.
    """

    models: int
    offloaded: int
    programs: int

    @property
    def peak(self) -> int:
        """The most that is used at once, an upper bound."""
        return self.models + self.offloaded + self.programs


def plan_host(params: Params, method: Method, total: int, trained: int) -> HostPlan:
    """Memory of the host for a model with `total` parameters, of which `trained` are trained.

    GRPO's reference model is loaded while a policy that DeepSpeed will shard is still on the host:
    by every process, under ZeRO-3 by one.

    Raises:
        ConfigError: no such DeepSpeed configuration.
    """
    launch, weight_size = params.launch, weight_bytes(params)
    config = deepspeed_config(params.train.deepspeed)
    copies = launch.processes_per_node
    has_reference = method == "grpo" and params.grpo.beta > 0 and params.train.lora is None
    if has_reference and config is not None:
        copies += 1 if zero_stage(config) == 3 else launch.processes_per_node
    offloaded = 0
    if is_offloaded(config, "param"):
        offloaded += total * weight_size
    if is_offloaded(config, "optimizer"):
        offloaded += trained * (ADAM_BYTES + MASTER_BYTES + weight_size)  # and gradients
    return HostPlan(
        models=copies * total * weight_size,
        offloaded=offloaded // launch.nodes,
        programs=launch.processes_per_node * PROCESS_BYTES,
    )


def check_host(params: Params, method: Method, base: Path) -> str:
    """Refuse a model that the processes of this node cannot load; reads no weights.

    Raises:
        ConfigError: the host has too little memory.
    """
    total = parameters_at(base)
    trained = total if params.train.lora is None else 0  # adapters are small
    plan, has = plan_host(params, method, total, trained), psutil.virtual_memory().total
    if plan.peak > has:
        number = params.launch.processes_per_node
        raise ConfigError(
            got=f"{has / GIB:.0f} GiB of memory on this host",
            need=f"{plan.peak / GIB:.0f} GiB: {plan.models / GIB:.0f} to load "
            f"{total / 1e9:.1f} billion parameters in {number} processes, "
            f"{plan.offloaded / GIB:.0f} offloaded by ZeRO, {plan.programs / GIB:.0f} for programs",
            because="every process loads the whole model before ZeRO divides it: a model loaded in "
            "shares is saved by transformers under names that it cannot open",
            do="fewer launch.processes_per_node on more launch.nodes, a smaller model, or a host "
            "with more memory; `vlm-r1 plan` shows the need",
        )
    return f"{plan.peak / GIB:.1f} GiB needed, {has / GIB:.0f} GiB in all"


def parameters_at(folder: Path) -> int:
    """Number of parameters in a folder's *.safetensors, from their headers; 0 without any."""
    count = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (it is no dict)
                size = 1
                for side in tensors.get_slice(name).get_shape():
                    size *= side
                count += size
    return count
