"""What `dvc metrics` and `dvc plots` show: metrics.json, and one table of curves per dataset."""

from pathlib import Path
from typing import Any

import pandas as pd

from vlm_r1.files import write_json
from vlm_r1.report.compute import largest_budgets
from vlm_r1.report.schema import Report


def write_views(report: Report, folder: Path) -> None:
    """Write `metrics.json` and `plots/<dataset>.csv` (step, sft, grpo: accuracy in percent)."""
    write_json(folder / "metrics.json", last_numbers(report))
    (folder / "plots").mkdir()
    for dataset, table in accuracy_tables(report).items():
        table.to_csv(folder / "plots" / f"{dataset}.csv", lineterminator="\n")


def last_numbers(report: Report) -> dict[str, Any]:
    """The verdict's numbers, and each method's accuracy at its last step on each dataset.

    `equal_flops`: grpo minus sft per dataset, raw and as gains, at the most FLOPs that both spent.
    """
    verdict = report.verdict.model_dump(
        include={"step", "difference", "ci_low", "ci_high", "p_value"}
    )
    accuracy: dict[str, dict[str, float]] = {}
    for point in report.curves:  # sorted by step, so the last step stays
        accuracy.setdefault(point.dataset, {})[point.method] = point.accuracy
    matched = {
        match.dataset: {
            "flops": match.flops,
            **{"difference": match.difference.points, "gain": match.gain.points},
            **{"gain_ci_low": match.gain.ci_low, "gain_ci_high": match.gain.ci_high},
        }
        for match in largest_budgets(report.compute)
    }
    return {"verdict": verdict, "accuracy": accuracy, "equal_flops": matched}


def accuracy_tables(report: Report) -> dict[str, pd.DataFrame]:
    """Dataset -> accuracy in percent: rows are steps, columns methods; NaN where not measured."""
    points = pd.DataFrame([point.model_dump() for point in report.curves])
    return {
        str(dataset): rows.pivot(index="step", columns="method", values="accuracy")[["sft", "grpo"]]
        for dataset, rows in points.groupby("dataset", sort=False)
    }
