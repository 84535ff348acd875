"""Stages `sft` and `grpo`: prepared records and the base -> models/<method>."""

import os
from pathlib import Path

from vlm_r1 import paths, tracking
from vlm_r1.config import Params
from vlm_r1.data.records import read_records
from vlm_r1.experiment import base_path, contract_of
from vlm_r1.files import part_of, put_in_place
from vlm_r1.launch import require_world
from vlm_r1.training.run import TrainingJob, train


def run(params: Params, root: Path, method: str, seed: int | None = None) -> None:
    """Train `method` (sft or grpo) and leave its checkpoints, logs and cost in models/<run>.

    Until the last step all is in `models/<run>.part`; if the training is killed or fails, the next
    one goes on from there (training/resume.py).
    Under torchrun every process trains, and the first one alone is tracked and renames the folder.

    Args:
        seed: one of experiment.seeds for a further run, models/<method>-<seed>.

    Raises:
        ConfigError: the experiment has no such seed, or `launch` has more or fewer processes.
    """
    require_world(params.launch)
    first = int(os.environ.get("RANK", "0")) == 0
    seeded = params.with_seed(seed)
    contract = contract_of(seeded, root)
    dataset = params.datasets[params.train_dataset]
    final = root / paths.run_dir(params.run_name(method, seed))
    part = part_of(final)
    with tracking.method_run(root, params, contract, method) as live:
        train(
            TrainingJob(
                method=method,
                params=seeded,
                contract=contract,
                base=base_path(params, root),
                records=read_records(root / paths.records_file(params.train_dataset)),
                images=root / dataset.images,
                output=part,
                root=root,
                listener=live.log,
            )
        )
    if first:
        put_in_place(part, final)
        tracking.best_effort(tracking.track_training, root, params, contract, method)
