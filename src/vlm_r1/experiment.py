"""The experiment's contract, base and checkpoints, from params and files. Loads no torch."""

from pathlib import Path

from vlm_r1 import paths
from vlm_r1.config import Method, Params
from vlm_r1.data.records import records_digest
from vlm_r1.data.training_set import read_training_set
from vlm_r1.errors import ConfigError
from vlm_r1.models.digest import checkpoint_digest
from vlm_r1.models.hub import snapshot
from vlm_r1.rec.contract import (
    Contract,
    TrainingContract,
    read_terms,
    require_equal,
    training_contract,
)


def contract_of(params: Params, root: Path, method: Method | None = None) -> TrainingContract:
    """The training contract of `params` with the base and the training records on disk.

    Args:
        method: whose training it is; None: of a method without terms of its own.
    """
    return training_contract(
        params,
        base_digest=checkpoint_digest(base_path(params, root)),
        records_digest=records_digest(read_training_set(params, root).records),
        method=method,
    )


def base_path(params: Params, root: Path) -> Path:
    """The base's folder: in the project, or of a model of the hub in the local cache.

    Raises:
        ConfigError: a folder with a revision, or a name on the hub without one.
        ModelError: a model of the hub that was not fetched.
    """
    name, revision = params.task.base_model, params.task.revision
    folder = root / name
    if folder.exists() == (revision is None):
        return folder if revision is None else snapshot(name, revision)
    found = "a folder" if folder.exists() else "no folder of the project"
    raise ConfigError(
        got=f"task.base_model {name}, {found}, and task.revision {revision or 'null'}",
        need="a folder and null, or a name on the hub and its commit (40 hexadecimal digits)",
        because="a name without a commit can stand for other weights tomorrow; a folder has none",
        do="correct task.base_model or task.revision; the hub shows commits under Files, History",
    )


def checkpoint_path(params: Params, root: Path, run: str, step: int, contract: Contract) -> Path:
    """The folder of a step's checkpoint; it must have been trained under `contract`.

    Raises:
        ModelError: the folder or its contract is missing.
        ContractError: it was trained under another contract.
    """
    if step == 0:
        return base_path(params, root)
    folder = paths.checkpoint_dir(run, step)
    require_terms(root, folder, contract)
    return root / folder


def require_terms(root: Path, checkpoint: Path, contract: Contract) -> None:
    """Require that a checkpoint (relative to `root`) was trained under `contract`.

    Raises:
        ModelError: its contract is missing.
        ContractError: it was trained under another contract.
    """
    in_force = contract.model_dump(include=set(TrainingContract.model_fields))
    require_equal({str(checkpoint): read_terms(root, checkpoint), "params.yaml": in_force})
