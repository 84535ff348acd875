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
    """The verdict's numbers, and each dataset's accuracies and difference of gains at the end.

    `equal_flops`: grpo minus sft per dataset, raw and as gains, at the most FLOPs that both spent.
    """
    verdict = report.verdict.model_dump(
        include={"step", "difference", "ci_low", "ci_high", "p_value"}
    )
    overall = report.verdict.overall
    if overall.gain is not None:
        verdict["gain"] = overall.gain.model_dump() | {"p_holm": overall.gain_p_holm}
    if report.statistics.gap_differences:
        gap = report.statistics.gap_differences[-1]
        verdict["generalization_gap_difference"] = gap.difference.model_dump()
    accuracy: dict[str, dict[str, float]] = {}
    for point in report.curves:  # sorted by step, so the last step stays
        accuracy.setdefault(point.dataset, {})[point.method] = point.accuracy
    gains = {gain.dataset: gain.difference for gain in report.gains}  # the last step stays
    matched = {
        match.dataset: {
            "flops": match.flops,
            **{"difference": match.difference.points, "gain": match.gain.points},
            **{"gain_ci_low": match.gain.ci_low, "gain_ci_high": match.gain.ci_high},
        }
        for match in largest_budgets(report.compute)
    }
    return {
        "verdict": verdict,
        "accuracy": accuracy,
        "gain_difference": gains,
        "equal_flops": matched,
    }


def accuracy_tables(report: Report) -> dict[str, pd.DataFrame]:
    """Dataset -> accuracy in percent: rows are steps, columns methods; NaN where not measured."""
    points = pd.DataFrame([point.model_dump() for point in report.curves])
    return {
        str(dataset): rows.pivot(index="step", columns="method", values="accuracy")[["sft", "grpo"]]
        for dataset, rows in points.groupby("dataset", sort=False)
    }
