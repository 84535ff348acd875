"""Stage prepare: params.datasets -> data/prepared/<dataset>/ with records and their validation.

Also data/inputs, which stands for what training and evaluation read.
"""

import json
import logging
from pathlib import Path

from vlm_r1.config import Params
from vlm_r1.data.expectations import Candidate, render_page, validate
from vlm_r1.data.orientation import upright_records
from vlm_r1.data.readers import read_vlm_r1_json
from vlm_r1.data.records import write_records
from vlm_r1.data.versions import write_inputs
from vlm_r1.errors import DataError
from vlm_r1.folders import whole_folder
from vlm_r1.paths import PREPARED

log = logging.getLogger(__name__)


def run(params: Params, root: Path) -> None:
    """Read, validate and write every dataset.

    Each gets validation.json and validation.html; records.parquet only those that pass.

    Raises:
        DataError: a row cannot be read (nothing is written then), or a dataset fails.
    """
    candidates = [_read(name, params, root) for name in params.datasets]
    verdicts = validate(candidates, params.train_dataset, params.validation)
    with whole_folder(root / PREPARED) as folder:
        for candidate in candidates:
            _write(folder / candidate.name, candidate, verdicts[candidate.name])
    _require_pass(verdicts)
    write_inputs(params, root, {candidate.name: candidate.frame for candidate in candidates})


def _read(name: str, params: Params, root: Path) -> Candidate:
    dataset = params.datasets[name]
    frame = read_vlm_r1_json(root / dataset.records, name, dataset.role)
    if dataset.exif == "ignored":
        frame = upright_records(frame, root / dataset.images)
    return Candidate(name, dataset.records, root / dataset.images, frame)


def _write(folder: Path, candidate: Candidate, verdict: dict) -> None:
    folder.mkdir()
    text = json.dumps(verdict, indent=1, ensure_ascii=False)
    (folder / "validation.json").write_text(text + "\n", encoding="utf-8")
    page = render_page(candidate.name, verdict)
    (folder / "validation.html").write_text(page, encoding="utf-8")
    if verdict["verdict"] == "pass":
        write_records(folder / "records.parquet", candidate.frame)
    log.info("%s: %d records, %s", candidate.name, verdict["rows"], verdict["verdict"])


def _require_pass(verdicts: dict[str, dict]) -> None:
    failures = [
        _failure(name, verdict["rows"], expectation)
        for name, verdict in verdicts.items()
        for expectation in verdict["expectations"]
        if not expectation["success"]
    ]
    if failures:
        raise DataError(
            got="; ".join(failures),
            need="datasets that meet every expectation",
            because="no number from broken data can be trusted",
            do=f"read {PREPARED}/<dataset>/validation.html, then correct the source",
        )


def _failure(name: str, rows: int, expectation: dict) -> str:
    first = expectation["examples"][0]
    return (
        f"{name}: {expectation['name']} fails for {expectation['failed']} of {rows} records,"
        f" first {first['file']} row {first['row']} {json.dumps(first['value'])}"
    )
