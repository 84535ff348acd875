"""The report from VLM-R1's prediction logs alone.

Method, dataset and step come from the file names, as VLM-R1 writes them:
`rec_results_<dataset>_qwen2_5vl_3b_instruct_{baseline|sft_<step>|r1_<step>}.json`. The baseline
is step 0 of both methods. The logs name neither images nor training settings, so the contract is
unverified and rows with the same true box count as one image.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vlm_r1 import config
from vlm_r1.config import METHODS, standalone
from vlm_r1.errors import ResultError
from vlm_r1.rec.results import read_results
from vlm_r1.report.build import ReportContext, build_report
from vlm_r1.report.lineage import package_versions
from vlm_r1.report.reproduce import commands_of_logs
from vlm_r1.report.results_table import EvalResult, make_eval_result, share_columns
from vlm_r1.report.schema import Lineage, Report, TrainingLog

_NAME = re.compile(
    r"rec_results_(?P<dataset>\w+?)_qwen2_5vl_(?P<size>\d+b)_instruct_"
    r"(?:(?P<baseline>baseline)|(?P<method>sft|r1)_(?P<step>\d+))\.json"
)
SIZE = "3b"
METHOD_OF = {"sft": "sft", "r1": "grpo"}
OUT_OF_DOMAIN = ("refgta", "lisa")  # what VLM-R1 calls out of domain

NO_TRAINING = "prediction logs do not tell"
NO_IMAGES = (
    "The logs name no images: rows with the same true box are taken as one image. Phrases on "
    "different things in one image are then taken as independent, so intervals may be narrow."
)


class NamedLog(NamedTuple):
    """A log and what its file name says; the baseline belongs to both methods."""

    path: Path
    dataset: str
    methods: Sequence[str]
    step: int


def report_from_logs(
    logs_dir: Path,
    out: Path,
    id_name: str | None = None,
    ood_name: str | None = None,
    settings: config.ReportSettings | None = None,
    seed: int = 42,
) -> Report:
    """Write the report of the logs in `logs_dir` as folder `out`.

    Args:
        id_name, ood_name: dataset (as in the file names) to show first in and out of domain. The
            roles of all others are guessed from their names, and the report says so.

    Raises:
        ResultError: there is no log, a name is not among them, a method or the out-of-domain
            dataset is missing, or the rows of two logs do not pair.
    """
    settings = settings or standalone.REPORT
    logs, skipped = _sort_files(logs_dir)
    roles = _roles(logs_dir, list(dict.fromkeys(log.dataset for log in logs)), id_name, ood_name)
    results = share_columns(result for log in logs for result in _results(log, roles[log.dataset]))
    results.sort(key=lambda result: result.dataset not in (id_name, ood_name))
    context = ReportContext(
        lineage=Lineage(versions=package_versions()),
        training=[TrainingLog(method=m, quantities={}, reason=NO_TRAINING) for m in METHODS],
        reproduce=partial(commands_of_logs, logs=logs_dir, id_name=id_name, ood_name=ood_name),
        notes=_notes(results, {n: r for n, r in roles.items() if n not in (id_name, ood_name)}),
        skipped=skipped,
    )
    return build_report(
        results,
        context,
        out=out,
        confidence=settings.confidence,
        gallery=settings.gallery,
        seed=seed,
    )


def _notes(results: list[EvalResult], guessed_roles: dict[str, str]) -> list[str]:
    """What a reader should know about roles and images that the logs do not give."""
    guessed = ", ".join(f"{name} {role}" for name, role in guessed_roles.items())
    notes = [f"Roles guessed from the names: {guessed}."] if guessed else []
    if not all(result.rows.names_all_images for result in results):
        notes.append(NO_IMAGES)
    return notes


def _sort_files(logs_dir: Path) -> tuple[list[NamedLog], list[tuple[str, str]]]:
    """The logs, and (file, reason) of all other files."""
    logs, skipped = [], []
    for path in sorted(path for path in logs_dir.glob("*") if path.is_file()):
        match = _NAME.fullmatch(path.name)
        if match is None:
            skipped.append((path.name, "its name is not that of a VLM-R1 result log"))
        elif match["size"] != SIZE:
            skipped.append((path.name, f"another model, {match['size']}; compared is {SIZE}"))
        else:
            methods = METHODS if match["baseline"] else (METHOD_OF[match["method"]],)
            logs.append(NamedLog(path, match["dataset"], methods, int(match["step"] or 0)))
    if not logs:
        raise ResultError(
            got=f"{logs_dir}: {len(skipped)} files, none of them a result log of the {SIZE} model",
            need=f"rec_results_<dataset>_qwen2_5vl_{SIZE}_instruct_"
            "{baseline|sft_<step>|r1_<step>}.json",
            because="method, dataset and step are read from the names",
            do="name the folder that holds the logs",
        )
    return logs, skipped


def _roles(
    logs_dir: Path, names: list[str], id_name: str | None, ood_name: str | None
) -> dict[str, str]:
    """The role of every dataset: as given, else guessed from its name."""
    for name in (id_name, ood_name):
        if name is not None and name not in names:
            raise ResultError(
                got=f"{logs_dir}: no log of dataset {name!r}",
                need=f"one of {', '.join(names)}",
                because="datasets are named as in the file names",
                do="correct --id or --ood",
            )
    roles = {name: "ood" if name.startswith(OUT_OF_DOMAIN) else "id" for name in names}
    given: dict[str | None, str] = {id_name: "id", ood_name: "ood"}
    return {name: given.get(name, role) for name, role in roles.items()}


def _results(log: NamedLog, role: str) -> list[EvalResult]:
    """The result of a log; two of the baseline, from which both methods start."""
    result = read_results(log.path)
    return [
        make_eval_result(
            result,
            method=method,
            dataset=log.dataset,
            role=role,
            step=log.step,
            source=log.path.name,
        )
        for method in log.methods
    ]
