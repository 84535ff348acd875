"""The registered model: a version per chosen checkpoint, with aliases champion and challenger.

A version's tags hold the folder and digest of its checkpoint; DVC keeps the weights.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_r1.config import Params
from vlm_r1.errors import ModelError
from vlm_r1.evaluation.selection import Choice, Selection
from vlm_r1.models.digest import checkpoint_digest
from vlm_r1.tracking.evaluations import track_evaluation
from vlm_r1.tracking.store import configure

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

MODEL_URI = re.compile(r"models:/(?P<name>[^@/]+)(?:@(?P<alias>[^@/]+)|/(?P<version>\d+))")


def register(root: Path, params: Params, selection: Selection) -> None:
    """Register both chosen checkpoints as versions of `registry.model_name` and set the aliases.

    A checkpoint that is already registered keeps its version.

    Raises:
        MlflowException: the registry cannot be reached.
        ModelError, ResultError: the files of a chosen method do not belong together.
    """
    client = configure(root)
    name = params.registry.model_name
    choices = {"champion": selection.champion, "challenger": selection.challenger}
    for alias, choice in choices.items():
        model_id = track_evaluation(root, params, choice.method)[choice.step]
        version = _version(client, name, model_id, _tags(choice, selection))
        client.set_registered_model_alias(name, alias, version)


def resolve(root: Path, uri: str) -> Path:
    """The checkpoint folder behind `models:/NAME@alias` or `models:/NAME/version`.

    Raises:
        ModelError: no such version, or its checkpoint is gone or has been overwritten.
    """
    version = _find_version(root, uri)
    folder = root / version.tags["checkpoint"]
    if not folder.is_dir():
        raise _unusable(uri, f"its checkpoint {version.tags['checkpoint']} is gone")
    if checkpoint_digest(folder) != version.tags["digest"]:
        raise _unusable(uri, f"{version.tags['checkpoint']} now holds other weights")
    return folder


def _version(client: "MlflowClient", name: str, model_id: str, tags: dict[str, str]) -> str:
    """The number of the LoggedModel's version; it is created if missing, and its tags updated."""
    import mlflow

    source = f"models:/{model_id}"
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.source == source:
            for key in [key for key in tags if version.tags.get(key) != tags[key]]:
                client.set_model_version_tag(name, version.version, key, tags[key])
            return version.version
    return mlflow.register_model(source, name, tags=tags).version


def _tags(choice: Choice, selection: Selection) -> dict[str, str]:
    return {
        "method": choice.method,
        "step": str(choice.step),
        "checkpoint": choice.checkpoint,
        "digest": choice.digest,
        "contract": selection.contract,
        "validation_datasets": ",".join(selection.datasets),
        "validation_accuracy": f"{choice.accuracy:.2f}",
        "validation_status": "passed",  # `select` requires one contract for all checkpoints
    }


def _find_version(root: Path, uri: str) -> "ModelVersion":
    parts = MODEL_URI.fullmatch(uri)
    if parts is None:
        raise _unusable(uri, "not models:/NAME@alias or models:/NAME/version")
    client = configure(root)
    from mlflow.exceptions import MlflowException

    try:
        if parts["alias"]:
            return client.get_model_version_by_alias(parts["name"], parts["alias"])
        return client.get_model_version(parts["name"], parts["version"])
    except MlflowException as error:
        raise _unusable(uri, str(error)) from error


def _unusable(uri: str, fault: str) -> ModelError:
    return ModelError(
        got=f"{uri}: {fault}",
        need="a registered checkpoint that is still what it was when registered",
        because="answers would come from another model than the one whose scores are recorded",
        do="`dvc checkout` brings files back; `dvc repro register` registers what is there",
    )
