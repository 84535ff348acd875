"""Training jobs in a test's project, and the weights they leave."""

from pathlib import Path

from safetensors.torch import load_file

from vlm_r1.config import Params
from vlm_r1.data.training_set import read_training_set
from vlm_r1.experiment import contract_of
from vlm_r1.training import grpo, sft
from vlm_r1.training.job import TrainingJob


def job_of(method: str, params: Params, root: Path, output: Path) -> TrainingJob:
    records, images = read_training_set(params, root)
    return TrainingJob(
        method=method,
        params=params,
        contract=contract_of(params, root),
        base=root / "models/base",
        records=records,
        images=images,
        output=output,
        root=root,
    )


def train(job: TrainingJob) -> None:
    (sft if job.method == "sft" else grpo).train(job)


def weights(folder: Path) -> dict:
    return load_file(folder / "model.safetensors")
