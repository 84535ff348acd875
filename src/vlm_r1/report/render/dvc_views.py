"""What `dvc metrics` and `dvc plots` show: metrics.json, and a table of curves for each dataset."""

import json
from pathlib import Path

import pandas as pd

from vlm_r1.report.schema import Report


def write_views(report: Report, folder: Path) -> None:
    """Write `metrics.json` and `plots/<dataset>.csv` (step, sft, grpo: accuracy in percent)."""
    text = json.dumps(last_numbers(report), indent=1)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    (folder / "plots").mkdir()
    for dataset, table in accuracy_tables(report).items():
        table.to_csv(folder / "plots" / f"{dataset}.csv", lineterminator="\n")


def last_numbers(report: Report) -> dict:
    """The verdict's numbers, and both methods' accuracies at their last step on every dataset."""
    verdict = report.verdict.model_dump(
        include={"step", "difference", "ci_low", "ci_high", "p_value"}
    )
    accuracy: dict[str, dict[str, float]] = {}
    for point in report.curves:  # by dataset and method, the last step last
        accuracy.setdefault(point.dataset, {})[point.method] = point.accuracy
    return {"verdict": verdict, "accuracy": accuracy}


def accuracy_tables(report: Report) -> dict[str, pd.DataFrame]:
    """Dataset -> accuracy in percent, a row a step, a column a method; empty where not measured."""
    points = pd.DataFrame([point.model_dump() for point in report.curves])
    return {
        dataset: rows.pivot(index="step", columns="method", values="accuracy")[["sft", "grpo"]]
        for dataset, rows in points.groupby("dataset", sort=False)
    }
