"""Stage `report`: results, prompts, costs and logs of both methods -> reports/generalization."""

import logging
from functools import partial
from pathlib import Path

from vlm_r1 import paths, tracking
from vlm_r1.config import METHODS, Params
from vlm_r1.files import read_model
from vlm_r1.report.build import ReportContext, build_report
from vlm_r1.report.choices import read_choices
from vlm_r1.report.common_prompts import common_prompts
from vlm_r1.report.compute import mean_cost
from vlm_r1.report.lineage import dataset_lines_from_validation, read_lineage
from vlm_r1.report.prompt_table import prompt_lines
from vlm_r1.report.reproduce import commands_of_project
from vlm_r1.report.results_table import load_eval_result, share_columns
from vlm_r1.report.schema import Cost
from vlm_r1.report.training import read_training_log
from vlm_r1.report.wording import NAMES

logger = logging.getLogger(__name__)


def run_tracked(params: Params, root: Path, allow_unfair: bool = False) -> Path:
    """`run`, with the report on its parent run in MLflow, whose id the report names."""
    with tracking.report_run(root, params) as run_id:
        return run(params, root, allow_unfair, run_id)


def run(
    params: Params, root: Path, allow_unfair: bool = False, mlflow_run_id: str | None = None
) -> Path:
    """Write the report over all datasets, methods, steps and seeds; returns its folder.

    Args:
        allow_unfair: go on when contracts differ, and mark every page as unfair.
        mlflow_run_id: the run that the report names as its own.

    Raises:
        ResultError: a result file, the prompt matrix, a cost or configuration file is missing or
            broken.
        ContractError: contracts differ and `allow_unfair` is not given.
        DataError: an image of the gallery is missing or broken.
    """
    results = share_columns(
        load_eval_result(root, params, method, dataset, step, seed)
        for dataset in params.evaluated_datasets
        for method in METHODS
        for step in params.step_grid(method)
        for seed in params.all_seeds
    )
    settings = params.report
    lineage = read_lineage(root, mlflow_run_id)
    logs = {m: root / paths.run_dir(m) / "training_log.jsonl" for m in METHODS}
    context = ReportContext(
        lineage=lineage,
        cost=[
            mean_cost([_read_cost(root, params.run_name(m, s)) for s in params.all_seeds])
            for m in METHODS
        ],
        choices=read_choices(params, root),
        training=[read_training_log(path, method) for method, path in logs.items()],
        prompts=prompt_lines(root, params, settings.confidence),
        common_prompts=common_prompts(root, params, settings.confidence),
        reproduce=partial(commands_of_project, lineage=lineage),
        images={name: root / params.datasets[name].images for name in params.evaluated_datasets},
        validated=dataset_lines_from_validation(root, params.datasets),
        notes=_unequal_lengths(params),
    )
    report = build_report(
        results,
        context,
        out=root / paths.REPORT,
        confidence=settings.confidence,
        seed=params.experiment.seed,
        gallery=settings.gallery,
        allow_unfair=allow_unfair,
    )
    logger.info("%s", report.verdict.text)
    return root / paths.REPORT


def _unequal_lengths(params: Params) -> list[str]:
    """A note for each method that trains on after the steps that both have."""
    return [
        f"{NAMES[method]} trains on to step {params.steps_of(method)}; step by step the methods "
        f"are compared up to step {params.train.steps}, which both have"
        for method in METHODS
        if params.steps_of(method) > params.train.steps
    ]


def _read_cost(root: Path, run: str) -> Cost:
    return read_model(
        Cost,
        paths.run_dir(run) / "cost.json",
        root,
        need="the cost that training wrote beside its checkpoints",
        because="the report compares the cost of the methods too",
        do="`dvc repro` to train again, or `dvc checkout` to bring the file back",
    )
