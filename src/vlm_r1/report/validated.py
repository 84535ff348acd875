"""What validation said of the datasets: lines for the report from data/prepared."""

import json
from pathlib import Path

from vlm_r1 import paths
from vlm_r1.config import Params
from vlm_r1.data.records import read_records, records_digest
from vlm_r1.report.schema import DatasetLine


def validated_lines(root: Path, params: Params) -> dict[str, DatasetLine]:
    """Dataset -> its line, for every one whose verdict and records lie under `root`.

    Raises:
        DataError: the records beside a verdict are broken.
    """
    return {
        name: _line(root, name, params.datasets[name].role)
        for name in params.datasets
        if (root / paths.validation_file(name)).is_file()
    }


def _line(root: Path, name: str, role: str) -> DatasetLine:
    verdict = json.loads((root / paths.validation_file(name)).read_text(encoding="utf-8"))
    records = read_records(root / paths.records_file(name))
    return DatasetLine(
        name=name,
        role=role,
        records=len(records),
        images=records["image"].nunique(),
        digest=records_digest(records),
        quarantined=verdict["quarantined"],
        leakage=len({leak["image"] for leak in verdict["leakage"]}),
    )
