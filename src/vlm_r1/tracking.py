"""MLflow as a view of the files: live during training, and rebuilt from the files at any time.

One experiment; a parent run per pipeline, found by its contract; a child run per training of a
method; one LoggedModel per checkpoint, its scores tied to model and dataset. The weights stay
where DVC keeps them. What a child run stands for is told by the digests of its checkpoints, so
that a training which DVC brings back is found again, or recorded anew from its files.
MLflow is imported by the functions, after its telemetry is off. docs/tracking.md shows the views.
"""

import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image, ImageDraw

from vlm_r1 import paths
from vlm_r1.config import METHODS, Params
from vlm_r1.contract import TrainingContract, read_terms, require_equal
from vlm_r1.data.images import open_picture
from vlm_r1.errors import ModelError
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.models.digest import checkpoint_digest
from vlm_r1.results import read_results

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, LoggedModel, Metric, Run

HOME = Path(".mlflow")  # database and artifacts of a project without a server
CONTRACT, METHOD, KIND = "vlm_r1.contract", "vlm_r1.method", "vlm_r1.kind"  # tags
DIGEST_CHARACTERS = 36  # MLflow's limit for a dataset's digest
SAMPLES_PER_STEP = 16  # rows shown; the files keep all (2 records, 8 completions each)
PICTURE_PX = 256  # longer side of a picture in the table of samples
TRUE_COLOR, ANSWER_COLOR = "lime", "red"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Branch:
    """One training run's branch of the run tree: where it is in MLflow, which files it shows."""

    client: "MlflowClient"
    experiment_id: str
    root: Path
    params: Params
    contract: TrainingContract
    method: str

    @property
    def name(self) -> str:
        return self.params.run_name(self.method, self.contract.seed)

    @property
    def files(self) -> Path:
        return self.root / paths.run_dir(self.name)

    def runs(self) -> list["Run"]:
        """Its child runs, the newest first."""
        tags = {METHOD: self.method, CONTRACT: self.contract.digest}
        return _search_runs(self.client, self.experiment_id, tags)

    def models(self, run_id: str) -> dict[int, "LoggedModel"]:
        """The LoggedModels of one of its runs, by step."""
        found = self.client.search_logged_models(
            [self.experiment_id], f"source_run_id = '{run_id}'", max_results=1000
        )
        return {int(model.params["step"]): model for model in found}

    def find_recorded(self, digests: dict[int, str]) -> tuple[str, dict[int, "LoggedModel"]] | None:
        """The newest run whose LoggedModels are these checkpoints (step -> digest), and them."""
        for run in self.runs():
            models = self.models(run.info.run_id)
            if {step: model.params["digest"] for step, model in models.items()} == digests:
                return run.info.run_id, models
        return None

    def just_ended(self) -> str | None:
        """The newest run, if it ended well and waits for its models."""
        for run in self.runs()[:1]:
            if run.info.status == "FINISHED" and not self.models(run.info.run_id):
                return run.info.run_id
        return None


def _branch(root: Path, params: Params, contract: TrainingContract, method: str) -> _Branch:
    client = configure(root)
    return _Branch(client, _experiment_id(client, root, params), root, params, contract, method)


def configure(root: Path) -> "MlflowClient":
    """Point MLflow at MLFLOW_TRACKING_URI, or else at the SQLite file of the project `root`."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.pop("MLFLOW_RUN_ID", None)  # of `mlflow run`; transformers would start a second run
    import mlflow

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if "MLFLOW_TRACKING_URI" in os.environ:
        mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    else:
        home = root.resolve() / HOME
        home.mkdir(exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
        # MLflow exports what it is told; left there, it would outlive a change of `root`.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    return mlflow.MlflowClient()


def pipeline_run_id(root: Path, params: Params, contract: TrainingContract) -> str:
    """The parent run of all training runs under this contract; made if there is none."""
    contract = contract.model_copy(update={"seed": params.experiment.seed})
    client = configure(root)
    experiment_id = _experiment_id(client, root, params)
    found = _search_runs(client, experiment_id, {KIND: "pipeline", CONTRACT: contract.digest})
    if found:
        return found[-1].info.run_id
    run_id = client.create_run(
        experiment_id,
        run_name=f"pipeline-{contract.digest[:8]}",
        tags={KIND: "pipeline", CONTRACT: contract.digest},
    ).info.run_id
    _log_params(client, run_id, contract.model_dump())
    client.log_dict(run_id, contract.model_dump(), "contract.json")
    return run_id


@contextmanager
def method_run(
    root: Path, params: Params, contract: TrainingContract, method: str
) -> Iterator[str | None]:
    """A new child run, active in this process so that the Trainer's MLflow callback logs into it.

    Ends FINISHED, or FAILED (the parent too) if the block raises. Yields the run's id; in any but
    the first process of a distributed training nothing is tracked and None is yielded.
    """
    if int(os.environ.get("RANK", "0")) != 0:
        yield None
        return
    branch = _branch(root, params, contract, method)
    import mlflow

    parent_id = pipeline_run_id(root, params, contract)
    branch.client.update_run(parent_id, status="RUNNING")
    try:
        with mlflow.start_run(
            experiment_id=branch.experiment_id,
            parent_run_id=parent_id,
            run_name=branch.name,
            tags={KIND: "method", METHOD: method, CONTRACT: contract.digest},
        ) as run:
            _describe_method(branch, run.info.run_id)
            try:
                yield run.info.run_id
            finally:
                mlflow.flush_async_logging()  # the callback logs in the background
    except BaseException:
        branch.client.set_terminated(parent_id, "FAILED")
        raise


def track_training(root: Path, params: Params, contract: TrainingContract, method: str) -> str:
    """Record a finished training: its LoggedModels (step 0 is the base), cost, samples and log.

    The child run is the one that already holds these checkpoints, or the live one that has just
    ended, or a new one whose metrics are replayed from training_log.jsonl. Returns its id.

    Raises:
        ModelError: a checkpoint of the step grid is missing.
        ContractError: a checkpoint was trained under another contract.
    """
    branch = _branch(root, params, contract, method)
    digests = _checkpoint_digests(branch)
    recorded = branch.find_recorded(digests)
    if recorded is not None:
        return recorded[0]
    run_id = branch.just_ended()
    if run_id is None:
        with method_run(root, params, contract, method) as run_id:
            _replay_log(branch, run_id)
    _log_cost(branch, run_id)
    _log_samples(branch, run_id)
    _create_models(branch, run_id, digests)
    return run_id


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
    branch = _branch(root, params, read_contract(root, params, method, seed), method)
    units = [
        (dataset, read_results(root / paths.result_file(branch.name, dataset, step)))
        for dataset in params.evaluated_datasets
        for step in params.train.step_grid
    ]
    digests = {result.meta["step"]: result.meta["checkpoint_digest"] for _, result in units}
    recorded = branch.find_recorded(digests)
    if recorded is None:
        track_training(root, params, branch.contract, method)
        recorded = branch.find_recorded(digests)
    if recorded is None:
        raise _other_checkpoints(branch.name)
    run_id, models = recorded
    metrics = [metric for unit in units for metric in _unit_metrics(*unit, models)]
    fresh = [metric for metric in metrics if not _is_logged(metric, models)]
    if fresh:
        digest_of = {dataset: result.meta["records_digest"] for dataset, result in units}
        inputs = [_dataset_input(name, digest, "evaluation") for name, digest in digest_of.items()]
        branch.client.log_inputs(run_id, inputs)
        branch.client.log_batch(run_id, metrics=fresh)
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
    client.log_text(run_id, _as_yaml(params), "params.yaml")
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
    client.log_batch(run_id, metrics=_metrics(fresh, verdict["step"]))
    client.set_tag(run_id, "vlm_r1.verdict", verdict["text"])
    note = f"{verdict['text']}\n\nThe report: Artifacts, `report/report.html`."
    client.set_tag(run_id, "mlflow.note.content", note)
    client.set_terminated(run_id, "FINISHED")


def rebuild(root: Path, params: Params) -> None:
    """Bring MLflow up to what the files say: all training runs, and the report if there is one."""
    for method, seed in product(METHODS, params.all_seeds):
        track_evaluation(root, params, method, seed)
    if (root / paths.REPORT / "report.json").exists():
        contract = read_contract(root, params, METHODS[0])
        track_report(root, params, contract, root / paths.REPORT)


def read_contract(
    root: Path, params: Params, method: str, seed: int | None = None
) -> TrainingContract:
    """The contract that a training run's last checkpoint was trained under.

    Raises:
        ModelError: the checkpoint is missing.
    """
    folder = paths.checkpoint_dir(params.run_name(method, seed), params.train.steps)
    return TrainingContract.model_validate(read_terms(root, folder))


def _other_checkpoints(run: str) -> ModelError:
    return ModelError(
        got=f"{paths.RESULTS / run}: digests that differ from those of the checkpoints "
        f"in {paths.run_dir(run)}",
        need="results measured on these very checkpoints",
        because="a score would otherwise be shown beside weights that did not earn it",
        do="`dvc status` names what is stale; `dvc repro` measures again",
    )


def _experiment_id(client: "MlflowClient", root: Path, params: Params) -> str:
    experiment = client.get_experiment_by_name(params.experiment.name)
    if experiment is not None:
        return experiment.experiment_id
    on_server = "MLFLOW_TRACKING_URI" in os.environ  # which then has its own place for artifacts
    artifacts = None if on_server else (root.resolve() / HOME / "artifacts").as_uri()
    experiment_id = client.create_experiment(params.experiment.name, artifact_location=artifacts)
    # Without it the UI opens as for chat agents, with checkpoints under "Agent versions".
    client.set_experiment_tag(experiment_id, "mlflow.experimentKind", "custom_model_development")
    return experiment_id


def _search_runs(client: "MlflowClient", experiment_id: str, tags: dict[str, str]) -> list["Run"]:
    """Runs with all these tags, the newest first."""
    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    return client.search_runs([experiment_id], query, order_by=["attributes.start_time DESC"])


def _checkpoint_digests(branch: _Branch) -> dict[int, str]:
    root, contract = branch.root, branch.contract
    digests = {0: contract.base_digest}
    for step in contract.step_grid[1:]:
        folder = paths.checkpoint_dir(branch.name, step)
        trained_under = read_terms(root, folder)
        require_equal({"this pipeline": contract.model_dump(), str(folder): trained_under})
        digests[step] = checkpoint_digest(root / folder)
    return digests


def _describe_method(branch: _Branch, run_id: str) -> None:
    """What shaped a training: its sections of params.yaml, the contract, the training records."""
    client, contract = branch.client, branch.contract
    params = branch.params.sown(contract.seed)
    shaping = {"experiment", "task", "train", branch.method}
    _log_params(client, run_id, params.model_dump(include=shaping))
    client.log_text(run_id, _as_yaml(params), "params.yaml")
    client.log_dict(run_id, contract.model_dump(), "contract.json")
    digest = contract.training_records_digest
    client.log_inputs(run_id, [_dataset_input(params.train_dataset, digest, "training")])


def _create_models(branch: _Branch, run_id: str, digests: dict[int, str]) -> None:
    """One LoggedModel per checkpoint; the weights stay where they are."""
    import mlflow
    from mlflow.entities import LoggedModelOutput

    method, run, outputs = branch.method, branch.name, []
    for step, digest in digests.items():
        base = branch.params.task.base_model
        where = paths.checkpoint_dir(run, step).as_posix() if step else base
        model = mlflow.create_external_model(
            name=f"{run}-step-{step}",
            source_run_id=run_id,
            experiment_id=branch.experiment_id,
            model_type="checkpoint",
            params={"method": method, "step": str(step), "checkpoint": where, "digest": digest},
            tags={METHOD: method, CONTRACT: branch.contract.digest},
        )
        outputs.append(LoggedModelOutput(model.model_id, step))
    branch.client.log_outputs(run_id, outputs)


def _unit_metrics(
    dataset: str, result: Any, models: dict[int, "LoggedModel"]
) -> Iterable["Metric"]:
    scores, step = score_results(result), result.meta["step"]
    return _metrics(
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


def _replay_log(branch: _Branch, run_id: str) -> None:
    """Log a training's file as the Trainer's callback would have logged it live."""
    file = branch.files / "training_log.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    metrics = [metric for line in lines for metric in _metrics(line, line["step"])]
    branch.client.log_batch(run_id, metrics=[m for m in metrics if m.key != "step"])
    branch.client.set_tag(run_id, "vlm_r1.replayed_from", file.name)


def _log_cost(branch: _Branch, run_id: str) -> None:
    cost = json.loads((branch.files / "cost.json").read_text(encoding="utf-8"))
    numbers = {f"cost/{key}": value for key, value in cost.items() if key != "method"}
    branch.client.log_batch(run_id, metrics=_metrics(numbers, branch.contract.step_grid[-1]))


def _log_samples(branch: _Branch, run_id: str) -> None:
    """The first completions of every sampled step as one table, `samples.json`.

    It has pictures if they are all there: MLflow takes no column with a gap.
    """
    import mlflow

    rows = [
        {"step": paths.step_of(file), **sample}
        for file in sorted((branch.files / "samples").glob("step-*.json"), key=paths.step_of)
        for sample in json.loads(file.read_text(encoding="utf-8"))[:SAMPLES_PER_STEP]
    ]
    if not rows:
        return
    table = pd.DataFrame(rows)
    pictures = [branch.root / row["image"] for row in rows]
    missing = [path for path in pictures if not path.is_file()]
    if missing:
        logger.warning("%d pictures are gone (%s): samples without", len(missing), missing[0])
    else:
        drawn = [
            mlflow.Image(draw_sample(path, row["true_box"], row["box"]))
            for path, row in zip(pictures, rows, strict=True)
        ]
        table.insert(1, "picture", drawn)
    branch.client.log_table(run_id, table, "samples.json")


def draw_sample(path: Path, true_box_px: list[float], box_px: list[float] | None) -> Image.Image:
    """The picture, small, with its true box (green) and the answered one (red; xyxy), if any."""
    picture = open_picture(path)
    width_px = max(1, max(picture.size) // 100)
    canvas = ImageDraw.Draw(picture)
    for box, color in ((true_box_px, TRUE_COLOR), (box_px, ANSWER_COLOR)):
        if box is not None:
            # A model may answer reversed or far-off corners, which PIL refuses.
            corners = np.clip(np.reshape(box, (2, 2)), 0, picture.size)
            drawn = *corners.min(axis=0), *corners.max(axis=0)
            canvas.rectangle(drawn, outline=color, width=width_px)
    picture.thumbnail((PICTURE_PX, PICTURE_PX))
    return picture


def _metrics(numbers: dict[str, float], step: int, **ties: str) -> list["Metric"]:
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    return [Metric(_metric_name(k), v, now_ms, step, **ties) for k, v in numbers.items()]


def _metric_name(key: str) -> str:
    """`key` as transformers' MLflowCallback spells it: what MLflow refuses becomes `_`."""
    return re.sub(r"[^0-9A-Za-z_\-\.\ :/]", "_", key)


def _dataset_input(name: str, digest: str, context: str) -> "DatasetInput":
    """A dataset by name and digest; MLflow reads nothing of it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": paths.records_file(name).as_posix()})
    dataset = Dataset(name, digest[:DIGEST_CHARACTERS], source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def _log_params(client: "MlflowClient", run_id: str, values: dict[str, Any]) -> None:
    from mlflow.entities import Param

    flat = pd.json_normalize(values, sep=".").iloc[0].to_dict()
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in flat.items()])


def _as_yaml(params: Params) -> str:
    return yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False)
