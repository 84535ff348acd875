"""Stages `sft` and `grpo`: prepared records and the base -> models/<method>."""

from pathlib import Path

from vlm_r1 import paths, tracking
from vlm_r1.config import Params
from vlm_r1.contract import TrainingContract, training_contract
from vlm_r1.data.records import read_records, records_digest
from vlm_r1.folders import whole_folder
from vlm_r1.models.loading import checkpoint_digest
from vlm_r1.training.run import TrainingJob, train


def run(params: Params, root: Path, method: str) -> None:
    """Train `method` (sft or grpo) and leave its checkpoints, logs and cost in models/<method>."""
    contract = contract_of(params, root)
    dataset = params.datasets[params.train_dataset]
    final = root / paths.method_dir(method)
    with (
        tracking.method_run(root, params, contract, method),
        whole_folder(final) as output,
    ):
        train(
            TrainingJob(
                method=method,
                params=params,
                contract=contract,
                base=base_path(params, root),
                records=read_records(root / paths.records_file(params.train_dataset)),
                images=root / dataset.images,
                output=output,
            )
        )
    tracking.track_training(root, params, contract, method)


def contract_of(params: Params, root: Path) -> TrainingContract:
    """The contract that the base and the training records on disk set."""
    records = read_records(root / paths.records_file(params.train_dataset))
    return training_contract(
        params,
        base_digest=checkpoint_digest(base_path(params, root)),
        records_digest=records_digest(records),
    )


def base_path(params: Params, root: Path) -> str | Path:
    """The base as a folder of the project, or as the hub name it is."""
    folder = root / params.task.base_model
    return folder if folder.exists() else params.task.base_model
