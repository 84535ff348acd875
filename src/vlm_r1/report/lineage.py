"""Where the numbers come from: commit, digests of data and models, packages, tracking run."""

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from vlm_r1 import paths
from vlm_r1.config.sections import Dataset
from vlm_r1.data.records import read_records, records_digest
from vlm_r1.data.versions import read_versions
from vlm_r1.report.schema import DatasetLine, Lineage

PACKAGES = ("vlm-r1", "torch", "transformers", "trl", "peft", "accelerate", "numpy", "scipy")


def read_lineage(root: Path, mlflow_run_id: str | None) -> Lineage:
    """The lineage of the project at `root`; without git or dvc.lock, their part is empty."""
    return Lineage(
        git_commit=_git_commit(root),
        data=read_versions(root),
        dvc=_dvc_outputs(root / "dvc.lock"),
        versions=package_versions(),
        mlflow_run_id=mlflow_run_id,
    )


def package_versions() -> dict[str, str | None]:
    """Package -> installed version, None if it is not installed. Imports none of them."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit(root: Path) -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _dvc_outputs(lock: Path) -> dict[str, dict[str, str]]:
    """Stage -> output -> md5.

    Outputs under reports/ are left out: they hold this report and what comes after it, so the
    values of an earlier run would make the same inputs give a different report.
    """
    if not lock.exists():
        return {}
    stages = yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages", {})
    outputs = {
        name: {
            out["path"]: out["md5"]
            for out in stage.get("outs", [])
            if not out["path"].startswith("reports/")
        }
        for name, stage in stages.items()
    }
    return {name: outs for name, outs in outputs.items() if outs}


def dataset_lines_from_validation(
    root: Path, datasets: Mapping[str, Dataset]
) -> dict[str, DatasetLine]:
    """Dataset -> its line in the report, for every dataset that was validated under `root`.

    Raises:
        DataError: the records that validation accepted are broken.
    """
    return {
        name: _dataset_line(root, name, dataset.role)
        for name, dataset in datasets.items()
        if (root / paths.validation_file(name)).is_file()
    }


def _dataset_line(root: Path, name: str, role: str) -> DatasetLine:
    validation = json.loads((root / paths.validation_file(name)).read_text(encoding="utf-8"))
    records = read_records(root / paths.records_file(name))
    return DatasetLine(
        name=name,
        role=role,
        records=len(records),
        images=records["image"].nunique(),
        digest=records_digest(records),
        quarantined=validation["quarantined"],
        leakage=_shared_images(validation, "training"),
        choice_leakage=_shared_images(validation, "choice"),
    )


def _shared_images(validation: dict[str, Any], kind: str) -> int:
    """Number of the dataset's images in leaks of a `leakage.Kind`, by its validation.json."""
    return len({leak["image"] for leak in validation["leakage"] if leak["kind"] == kind})
