"""The report on the parent run: files, headline numbers and verdict."""

import json
from pathlib import Path
from typing import Any

from vlm_r1 import paths
from vlm_r1.config import Params
from vlm_r1.rec.contract import TrainingContract
from vlm_r1.tracking.entities import as_yaml, metrics_of
from vlm_r1.tracking.runs import pipeline_run_id
from vlm_r1.tracking.store import configure

HEADLINES = ("difference", "ci_low", "ci_high", "p_value")  # of the verdict


def track_report(root: Path, params: Params, contract: TrainingContract) -> None:
    """Log the report on the parent run and mark that run as finished.

    Raises:
        FileNotFoundError: there is no report.json.
    """
    client = configure(root)
    run_id = pipeline_run_id(root, params, contract)
    folder = root / paths.REPORT
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    verdict = report["verdict"]
    client.log_artifacts(run_id, str(folder), "report")
    client.log_text(run_id, as_yaml(params), "params.yaml")
    for name in params.datasets:
        for file in (root / paths.validation_file(name)).parent.glob("validation.*"):
            client.log_artifact(run_id, str(file), f"validation/{name}")
    logged = client.get_run(run_id).data.metrics
    new = {key: value for key, value in _numbers(report).items() if logged.get(key) != value}
    client.log_batch(run_id, metrics=metrics_of(new, verdict["step"]))
    client.set_tag(run_id, "vlm_r1.verdict", verdict["text"])
    note = f"{verdict['text']}\n\nThe report: Artifacts, `report/report.html`."
    client.set_tag(run_id, "mlflow.note.content", note)
    client.set_terminated(run_id, "FINISHED")


def _numbers(report: dict[str, Any]) -> dict[str, float]:
    """The verdict's numbers; accuracies (percent) and gains (points) at the last step, and
    differences at equal FLOPs."""
    numbers = {f"verdict/{key}": report["verdict"][key] for key in HEADLINES}
    overall = report["verdict"]["overall"]
    if overall["gain"] is not None:
        numbers |= {f"verdict/gain_{key}": value for key, value in overall["gain"].items()}
        numbers["verdict/gain_p_holm"] = overall["gain_p_holm"]
    for gap in report["statistics"]["gap_differences"][-1:]:
        numbers |= {f"verdict/gap_{key}": value for key, value in gap["difference"].items()}
    for gain in report["gains"]:  # by step, so the last one stays
        numbers[f"last_gain_difference/{gain['dataset']}"] = gain["difference"]
    last_step = max(point["step"] for point in report["curves"])
    for point in report["curves"]:
        if point["step"] == last_step:
            numbers[f"last_accuracy/{point['method']}.{point['dataset']}"] = point["accuracy"]
    for match in report["compute"]["matched"]:  # by FLOPs, so the largest budget stays
        numbers[f"equal_flops/difference.{match['dataset']}"] = match["difference"]["points"]
        numbers[f"equal_flops/gain.{match['dataset']}"] = match["gain"]["points"]
    return numbers
