"""The terms in force: the contract that params, base and training records set. Loads no torch."""

from pathlib import Path

from vlm_r1 import paths
from vlm_r1.config import Params
from vlm_r1.contract import TrainingContract, training_contract
from vlm_r1.data.records import read_records, records_digest
from vlm_r1.models.digest import checkpoint_digest


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
