"""Scores of a training run's checkpoints, on their LoggedModels."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_r1 import paths
from vlm_r1.config import Method, Params
from vlm_r1.errors import ModelError
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.rec.results import ResultFile, read_results
from vlm_r1.tracking.entities import DIGEST_CHARACTERS, dataset_input, metrics_of
from vlm_r1.tracking.runs import RunContext, read_contract, run_context
from vlm_r1.tracking.trainings import track_training

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Metric

Results = list[tuple[str, ResultFile]]  # (dataset, result file), one for each dataset and step
Models = dict[int, "LoggedModel"]  # by step


def track_evaluation(
    root: Path, params: Params, method: Method, seed: int | None = None
) -> dict[int, str]:
    """Log the scores of every result file on the child run, tied to LoggedModel and dataset.

    Metrics are `accuracy/<dataset>` (percent), `mean_iou/<dataset>` and `parse_rate/<dataset>`
    (0-1) at the checkpoint's step, computed anew from the answers. Values that MLflow already has
    are not logged again.

    Returns:
        step -> id of the LoggedModel.

    Raises:
        ModelError: the results were measured on other checkpoints than those in models/.
        ResultError: a result file is missing or broken.
    """
    context = run_context(root, params, read_contract(root, params, method, seed), method)
    results = [
        (dataset, read_results(root / paths.result_file(context.name, dataset, step)))
        for dataset in params.evaluated_datasets
        for step in params.step_grid(method)
    ]
    run_id, models = _recorded_training(context, results)
    _log_new_scores(context, run_id, results, models)
    return {step: model.model_id for step, model in models.items()}


def _recorded_training(context: RunContext, results: Results) -> tuple[str, Models]:
    """The child run whose models were evaluated; it is recorded from its files if missing."""
    digests = {_meta(result)["step"]: _meta(result)["checkpoint_digest"] for _, result in results}
    recorded = context.find_recorded(digests)
    if recorded is None:
        track_training(context.root, context.params, context.contract, context.method)
        recorded = context.find_recorded(digests)
    if recorded is None:
        raise _other_checkpoints(context.name)
    return recorded


def _log_new_scores(context: RunContext, run_id: str, results: Results, models: Models) -> None:
    new = [
        metric
        for dataset, result in results
        for metric in _score_metrics(dataset, result, models)
        if not _is_logged(metric, models)
    ]
    if new:
        digest_of = {dataset: _meta(result)["records_digest"] for dataset, result in results}
        inputs = [dataset_input([name], digest, "evaluation") for name, digest in digest_of.items()]
        context.client.log_inputs(run_id, inputs)
        context.client.log_batch(run_id, metrics=new)


def _score_metrics(dataset: str, result: ResultFile, models: Models) -> Iterable["Metric"]:
    scores, meta = score_results(result), _meta(result)
    return metrics_of(
        {
            f"accuracy/{dataset}": round(scores.accuracy, 6),  # MLflow shows every digit
            f"mean_iou/{dataset}": round(scores.mean_iou, 6),
            f"parse_rate/{dataset}": round(scores.parse_rate, 6),
        },
        meta["step"],
        model_id=models[meta["step"]].model_id,
        dataset_name=dataset,
        dataset_digest=meta["records_digest"][:DIGEST_CHARACTERS],
    )


def _meta(result: ResultFile) -> dict[str, Any]:
    """The block that the stage `evaluate` always writes; logs of other tools have none."""
    assert result.meta is not None
    return result.meta


def _is_logged(metric: "Metric", models: Models) -> bool:
    """True if this is the latest value of the metric on its LoggedModel."""
    same = [m for m in models[metric.step].metrics or [] if m.key == metric.key]
    return bool(same) and max(same, key=lambda m: m.timestamp).value == metric.value


def _other_checkpoints(run: str) -> ModelError:
    return ModelError(
        got=f"{paths.RESULTS / run}: digests that differ from those of the checkpoints "
        f"in {paths.run_dir(run)}",
        need="results measured on these checkpoints",
        because="a score must be shown with the weights that it was measured on",
        do="`dvc status` names what is stale; `dvc repro` measures again",
    )
