"""What was measured: scores of every unit on its LoggedModel, the report on the parent run."""

import json
import logging
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_r1 import paths
from vlm_r1.config import METHODS, Params
from vlm_r1.errors import ModelError
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.rec.contract import TrainingContract
from vlm_r1.rec.results import read_results
from vlm_r1.tracking.runs import (
    DIGEST_CHARACTERS,
    as_yaml,
    configure,
    dataset_input,
    metrics_of,
    pipeline_run_id,
    read_contract,
    run_context,
)
from vlm_r1.tracking.trainings import track_training

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Metric

logger = logging.getLogger(__name__)


def track_evaluation(
    root: Path, params: Params, method: str, seed: int | None = None
) -> dict[int, str]:
    """Log every unit's scores, recomputed, on the child run, tied to its LoggedModel and dataset.

    Metrics are `accuracy/<dataset>` (percent), `mean_iou/<dataset>` and `parse_rate/<dataset>`
    (0-1) at the checkpoint's step; what is already there is not logged again.

    Returns:
        step -> id of the LoggedModel.

    Raises:
        ModelError: the results were measured on other checkpoints than those in models/.
        ResultError: a result file is missing or broken.
    """
    context = run_context(root, params, read_contract(root, params, method, seed), method)
    units = [
        (dataset, read_results(root / paths.result_file(context.name, dataset, step)))
        for dataset in params.evaluated_datasets
        for step in params.train.step_grid
    ]
    digests = {result.meta["step"]: result.meta["checkpoint_digest"] for _, result in units}
    recorded = context.find_recorded(digests)
    if recorded is None:
        track_training(root, params, context.contract, method)
        recorded = context.find_recorded(digests)
    if recorded is None:
        raise _other_checkpoints(context.name)
    run_id, models = recorded
    metrics = [metric for unit in units for metric in _unit_metrics(*unit, models)]
    fresh = [metric for metric in metrics if not _is_logged(metric, models)]
    if fresh:
        digest_of = {dataset: result.meta["records_digest"] for dataset, result in units}
        inputs = [dataset_input(name, digest, "evaluation") for name, digest in digest_of.items()]
        context.client.log_inputs(run_id, inputs)
        context.client.log_batch(run_id, metrics=fresh)
    return {step: model.model_id for step, model in models.items()}


def track_report(root: Path, params: Params, contract: TrainingContract, report_dir: Path) -> None:
    """The report's files, headline numbers and verdict on the parent run, which then is finished.

    Raises:
        FileNotFoundError: no report.json in `report_dir`.
    """
    client = configure(root)
    run_id = pipeline_run_id(root, params, contract)
    report = json.loads((report_dir / "report.json").read_text(encoding="utf-8"))
    verdict = report["verdict"]
    client.log_artifacts(run_id, str(report_dir), "report")
    client.log_text(run_id, as_yaml(params), "params.yaml")
    for name in params.datasets:
        for file in (root / paths.validation_file(name)).parent.glob("validation.*"):
            client.log_artifact(run_id, str(file), f"validation/{name}")
    numbers = {
        f"verdict/{key}": verdict[key] for key in ("difference", "ci_low", "ci_high", "p_value")
    }
    last_step = max(point["step"] for point in report["curves"])
    for point in report["curves"]:
        if point["step"] == last_step:
            numbers[f"last_accuracy/{point['method']}.{point['dataset']}"] = point["accuracy"]
    logged = client.get_run(run_id).data.metrics
    fresh = {key: value for key, value in numbers.items() if logged.get(key) != value}
    client.log_batch(run_id, metrics=metrics_of(fresh, verdict["step"]))
    client.set_tag(run_id, "vlm_r1.verdict", verdict["text"])
    note = f"{verdict['text']}\n\nThe report: Artifacts, `report/report.html`."
    client.set_tag(run_id, "mlflow.note.content", note)
    client.set_terminated(run_id, "FINISHED")


def rebuild(root: Path, params: Params) -> None:
    """Bring MLflow up to what the files say of trainings, evaluations and the report.

    Raises:
        ModelError, ContractError, ResultError: files that do not belong together.
    """
    for method, seed in product(METHODS, params.all_seeds):
        run = params.run_name(method, seed)
        if (root / paths.RESULTS / run).exists():
            track_evaluation(root, params, method, seed)
            logger.info("%s: training and evaluation recorded", run)
        elif (root / paths.run_dir(run)).exists():
            track_training(root, params, read_contract(root, params, method, seed), method)
            logger.info("%s: training recorded, no results yet", run)
        else:
            logger.info("%s: not trained yet", run)
    if (root / paths.REPORT / "report.json").exists():
        contract = read_contract(root, params, METHODS[0])
        track_report(root, params, contract, root / paths.REPORT)
        logger.info("report recorded")


def _other_checkpoints(run: str) -> ModelError:
    return ModelError(
        got=f"{paths.RESULTS / run}: digests that differ from those of the checkpoints "
        f"in {paths.run_dir(run)}",
        need="results measured on these very checkpoints",
        because="a score would otherwise be shown beside weights that did not earn it",
        do="`dvc status` names what is stale; `dvc repro` measures again",
    )


def _unit_metrics(
    dataset: str, result: Any, models: dict[int, "LoggedModel"]
) -> Iterable["Metric"]:
    scores, step = score_results(result), result.meta["step"]
    return metrics_of(
        {
            f"accuracy/{dataset}": round(scores.accuracy, 6),  # the UI shows every digit
            f"mean_iou/{dataset}": round(scores.mean_iou, 6),
            f"parse_rate/{dataset}": round(scores.parse_rate, 6),
        },
        step,
        model_id=models[step].model_id,
        dataset_name=dataset,
        dataset_digest=result.meta["records_digest"][:DIGEST_CHARACTERS],
    )


def _is_logged(metric: "Metric", models: dict[int, "LoggedModel"]) -> bool:
    """Whether this is the last value that its LoggedModel has for it."""
    same = [m for m in models[metric.step].metrics or [] if m.key == metric.key]
    return bool(same) and max(same, key=lambda m: m.timestamp).value == metric.value
