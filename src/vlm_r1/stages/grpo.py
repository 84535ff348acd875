"""Stage `grpo`: prepared records and the base -> models/grpo, or models/grpo-<seed>."""

from pathlib import Path

from vlm_r1 import tracking
from vlm_r1.config import Params
from vlm_r1.launch import require_world
from vlm_r1.training import grpo
from vlm_r1.training.job import load_job


def run(params: Params, root: Path, seed: int | None = None) -> None:
    """Train by GRPO and leave checkpoints, log, samples and cost; a killed training is continued.

    Args:
        seed: one of experiment.seeds for a further run.

    Raises:
        ConfigError: the experiment has no such seed, or `launch` asks for another number of
            processes than run this.
    """
    require_world(params.launch)
    job = load_job(params, root, "grpo", seed)
    with tracking.training_run(root, params, job.contract, "grpo") as log_line:
        grpo.train(job, log_line)
