"""Disk that trainings need: weights of every checkpoint, state of the newest, DVC's copy, results.

Every checkpoint keeps its weights. The state of the optimizer is on the disk once, and twice while
the next one is written (training/resume.py); a finished training has none.
"""

import configparser
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from torch import nn

from vlm_r1 import paths
from vlm_r1.config import METHODS, Method, Params
from vlm_r1.config.deepspeed import deepspeed_config, zero_stage
from vlm_r1.errors import ConfigError
from vlm_r1.preflight.memory import ADAM_BYTES, FLOAT32_BYTES, GIB, MASTER_BYTES, weight_bytes

FICLONE = 0x40049409  # Linux, <linux/fs.h>: share the blocks of a file
STATES_WHILE_SAVING = 2
OTHER_BYTES = 2**24  # of a checkpoint: tokenizer, configs, the trainer's log
# Of an evaluated row: a result's numbers, and its completion there and in the cache
ROW_BYTES, TOKEN_BYTES = 400, 2 * 5


@dataclass(frozen=True)
class CheckpointSize:
    """Bytes of one checkpoint: what stays, and what only resuming needs."""

    weights: int
    state: int


@dataclass(frozen=True)
class DiskPlan:
    """Bytes on the disk of a whole experiment.

    Attributes:
        models: checkpoints of all training runs, without state.
        states: state while a training saves, at most.
        dvc: DVC's copy of the models; 0 where its cache is linked.
        results: of all evaluations, with their cache, at most; None before data is prepared.
    """

    checkpoint: CheckpointSize
    models: int
    states: int
    dvc: int
    results: int | None

    @property
    def peak(self) -> int:
        """The most that is used at once."""
        return self.models + self.states + self.dvc + (self.results or 0)


def checkpoint_size(params: Params, total: int, trained: int) -> CheckpointSize:
    """The size of a checkpoint of a model with `total` parameters, of which `trained` are trained.

    Raises:
        ConfigError: no such DeepSpeed configuration.
    """
    train, weight_size = params.train, weight_bytes(params)
    if train.lora is not None:
        weights = trained * FLOAT32_BYTES  # the adapters alone
    else:
        weights = total * weight_size
    weights += OTHER_BYTES
    if train.save_only_model:
        return CheckpointSize(weights, 0)
    state = trained * ADAM_BYTES
    if train.deepspeed is not None:
        state += trained * MASTER_BYTES
        if zero_stage(deepspeed_config(train.deepspeed)) < 3:  # it saves the weights once more
            state += weights
    return CheckpointSize(weights, state)


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Numbers of all parameters and of those that are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def plan_disk(params: Params, root: Path, total: int, trained: int) -> DiskPlan:
    """Disk of all training runs of both methods and their results.

    Raises:
        ConfigError: no such DeepSpeed configuration.
    """
    size = checkpoint_size(params, total, trained)
    checkpoints = sum(len(params.step_grid(method)) - 1 for method in METHODS)
    models = checkpoints * len(params.all_seeds) * size.weights
    return DiskPlan(
        checkpoint=size,
        models=models,
        states=STATES_WHILE_SAVING * size.state,
        dvc=models if copies_outputs(root) else 0,
        results=_results(params, root),
    )


def check_disk(
    params: Params,
    method: Method,
    root: Path,
    work_folder: Path,
    size: CheckpointSize,
    has_state: bool,
) -> str:
    """Refuse a training whose remaining checkpoints do not fit on the disk.

    Args:
        work_folder: where it writes; whole checkpoints of an earlier attempt are counted as done.
        has_state: one of them has the state of the optimizer.

    Raises:
        ConfigError: the free space is too small.
    """
    steps = params.step_grid(method)[1:]
    left = [s for s in steps if not (work_folder / f"checkpoint-{s}/contract.json").exists()]
    states = min(len(left), STATES_WHILE_SAVING - has_state)
    copy = len(steps) * size.weights if copies_outputs(root) else 0
    need = len(left) * size.weights + states * size.state + copy
    free = shutil.disk_usage(work_folder).free
    if need > free:
        raise ConfigError(
            got=f"{free / GIB:.2f} GiB free for {work_folder.name}",
            need=f"{need / GIB:.2f} GiB: {len(left)} checkpoints of {size.weights / GIB:.2f}, "
            f"{states} x {size.state / GIB:.2f} for the optimizer's state, "
            f"{copy / GIB:.2f} for DVC's copy",
            because="a full disk would end the training within a checkpoint",
            do="free some space, save fewer train.checkpoints or train.save_only_model: true, or "
            "give DVC a cache that it can link (docs/operations.md); `vlm-r1 plan` adds it all up",
        )
    return f"{need / GIB:.1f} GiB needed, {free / GIB:.1f} GiB free"


def copies_outputs(root: Path) -> bool:
    """True if DVC keeps a copy of each output in its cache, since it cannot link them here."""
    if not (root / ".dvc").is_dir():
        return False
    settings = configparser.ConfigParser()
    settings.read([root / ".dvc/config", root / ".dvc/config.local"])
    cache = settings["cache"] if settings.has_section("cache") else {}
    default = "reflink,copy"  # DVC's own
    kinds = [kind.strip(' "') for kind in cache.get("type", default).split(",")]
    folder = root / ".dvc" / cache.get("dir", "cache")  # DVC's base for a relative one
    ways = {"reflink": _reflink, "hardlink": os.link, "symlink": os.symlink}
    outputs, folder = _existing(root / paths.MODELS), _existing(folder)
    return not any(_works(ways[kind], outputs, folder) for kind in kinds if kind in ways)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def _works(link: Callable[[str, str], None], source: Path, target: Path) -> bool:
    """True if a file in one folder can be linked from the other; tried with an empty one."""
    with tempfile.NamedTemporaryFile(dir=source, suffix=".part") as file:
        copy = target / f"{Path(file.name).name}.part"
        try:
            link(file.name, str(copy))
        except OSError:
            return False
        finally:
            copy.unlink(missing_ok=True)
        return True


def _reflink(source: str, target: str) -> None:
    with open(source, "rb") as file, open(target, "wb") as copy:
        fcntl.ioctl(copy, FICLONE, file.fileno())


def _results(params: Params, root: Path) -> int | None:
    """Bytes of all results and completions, if every answer is as long as it may be."""
    files = [root / paths.records_file(name) for name in params.evaluated_datasets]
    if not all(file.exists() for file in files):
        return None
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    asked = sum(len(params.step_grid(method)) for method in METHODS) * len(params.all_seeds)
    answers = 1 + params.evaluate.repeats
    return rows * asked * answers * (ROW_BYTES + TOKEN_BYTES * params.evaluate.max_new_tokens)
