"""The report's figures as files, PNG and SVG: curves, gains, equal compute, training, ...."""

from dataclasses import replace
from pathlib import Path

from vlm_r1.report.render.charts import (
    Chart,
    curve_charts,
    gain_charts,
    published_charts,
    training_charts,
)
from vlm_r1.report.render.cost_charts import flops_charts
from vlm_r1.report.render.drawing import save_figure
from vlm_r1.report.render.threshold_charts import threshold_charts
from vlm_r1.report.schema import Report
from vlm_r1.report.wording import NAMES

GAINS = "Solid: difference of gains since step 0, with intervals. Dashed: as the checkpoints stand."
SOLID_AND_DASHED = "Solid: boxes as answered, with intervals. Dashed: coordinates corrected."


def draw_figures(report: Report, folder: Path) -> None:
    """Write the figures into `folder`; one that would have no charts is left out."""
    curves = _rows(curve_charts(report), 2)  # in domain first
    published = _rows(published_charts(report), 2)
    training = [
        replace(chart, title=f"{NAMES[log.method]} · {chart.title}")
        for log in report.training
        for chart in training_charts(log)
    ]
    _save("curves", curves, SOLID_AND_DASHED, report, folder)
    _save("gains", _rows(gain_charts(report), 2), GAINS, report, folder)
    _save("published", published, "Solid: this report. Dotted: as published.", report, folder)
    _save("compute", _rows(flops_charts(report), 2), "", report, folder)
    caption = "Solid: difference of gains, with intervals. Dashed: as the checkpoints stand."
    _save("thresholds", _rows(threshold_charts(report), 2), caption, report, folder)
    _save("training", _rows(training, 3), "", report, folder)


def _rows(charts: list[Chart], columns: int) -> list[list[Chart]]:
    return [charts[i : i + columns] for i in range(0, len(charts), columns)]


def _save(name: str, rows: list[list[Chart]], caption: str, report: Report, folder: Path) -> None:
    if rows:
        files = [folder / f"{name}.png", folder / f"{name}.svg"]
        save_figure(rows, files, report.unfair, caption)
