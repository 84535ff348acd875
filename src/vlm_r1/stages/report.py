"""Stage `report`: results/ and models/*/cost.json -> reports/generalization/."""

import logging
from pathlib import Path

from pydantic import ValidationError

from vlm_r1 import paths
from vlm_r1.config import METHODS, Params
from vlm_r1.errors import ResultError
from vlm_r1.evaluation.statistics import Resampling
from vlm_r1.report.build import build_report
from vlm_r1.report.lineage import read_lineage
from vlm_r1.report.schema import Cost
from vlm_r1.report.units import read_unit
from vlm_r1.results import first_fault

log = logging.getLogger(__name__)


def run(
    params: Params, root: Path, allow_unfair: bool = False, mlflow_run_id: str | None = None
) -> Path:
    """Write the report of every unit of the step grid; returns its folder.

    Raises:
        ResultError: a result file or a cost file is missing or broken.
        ContractError: contracts differ and `allow_unfair` is not given.
        DataError: a picture of the gallery is missing or broken.
    """
    units = [
        read_unit(root, params, method, dataset, step, seed)
        for dataset in params.evaluated_datasets
        for method in METHODS
        for step in params.train.step_grid
        for seed in params.all_seeds
    ]
    settings = params.report
    report = build_report(
        units,
        out=root / paths.REPORT,
        lineage=read_lineage(root, mlflow_run_id),
        resampling=Resampling(settings.confidence, settings.resamples, params.experiment.seed),
        gallery=settings.gallery,
        cost=[_read_cost(root, method) for method in METHODS],
        images={name: root / params.datasets[name].images for name in params.evaluated_datasets},
        allow_unfair=allow_unfair,
    )
    log.info("%s", report.verdict.text)
    return root / paths.REPORT


def _read_cost(root: Path, method: str) -> Cost:
    file = paths.run_dir(method) / "cost.json"
    try:
        return Cost.model_validate_json((root / file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        fault = "no such file"
    except ValidationError as error:
        fault = first_fault(error)
    raise ResultError(
        got=f"{file}: {fault}",
        need="the cost that training wrote beside its checkpoints",
        because="a comparison of methods without their cost is half a comparison",
        do="`dvc repro` to train again, or `dvc checkout` to bring the file back",
    )
