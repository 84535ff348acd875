"""Every figure of a report as PNG and SVG: curves, training, and beside published curves."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vlm_r1.report.published_curves import our_curve
from vlm_r1.report.render.png_curves import (
    COLORS,
    FAINT,
    INK,
    draw_curves,
    plain_axis,
    save,
    set_steps,
)
from vlm_r1.report.render.svg_charts import percent_range
from vlm_r1.report.schema import PublishedSeries, Report, TrainingLog
from vlm_r1.report.training import QUANTITIES
from vlm_r1.report.verdict import NAMES

COLUMNS = 3  # of the training figure


def draw_figures(report: Report, folder: Path) -> list[str]:
    """Write the figures into `folder`; returns their names without suffix, curves first.

    `training` and `published` are left out where there is nothing to draw.
    """
    draw_curves(report, folder / "curves.png", folder / "curves.svg")
    drawn = ["curves"]
    figures = {"training": _training(report.training), "published": _published(report)}
    for name, figure in figures.items():
        if figure is not None:
            save(figure, report, (folder / f"{name}.png", folder / f"{name}.svg"))
            drawn.append(name)
    return drawn


def _training(logs: list[TrainingLog]) -> Figure | None:
    curves = [(log.method, name, points) for log in logs for name, points in log.quantities.items()]
    if not curves:
        return None
    figure, axes = _panels(len(curves), COLUMNS, width=3.6, height=2.1)
    for axis, (method, name, points) in zip(axes, curves, strict=True):
        axis.plot(*zip(*points, strict=True), color=COLORS[method], linewidth=1.6)
        title = f"{NAMES[method]} · {QUANTITIES[name]}"
        axis.set_title(title, loc="left", color=INK, fontsize=9.5, fontweight="bold")
        axis.tick_params(labelsize=8)
    return figure


def _published(report: Report) -> Figure | None:
    groups = list(dict.fromkeys(tuple(series.datasets) for series in report.published))
    if not groups:
        return None
    figure, axes = _panels(len(groups), 2, width=5.6, height=3.6)
    for axis, group in zip(axes, groups, strict=True):
        for method, name in NAMES.items():
            points = our_curve(report.curves, method, group)
            axis.plot(*zip(*points, strict=True), color=COLORS[method], linewidth=2.2, label=name)
        for series in report.published:
            if tuple(series.datasets) == group:
                _draw_published(axis, series)
        title = " + ".join(group)
        axis.set_title(title, loc="left", color=INK, fontsize=10, fontweight="bold")
        axis.set_ylabel("accuracy, %", color=FAINT)
        axis.set_ylim(*percent_range([y for line in axis.lines for y in line.get_ydata()]))
        axis.legend(frameon=False, fontsize=8)
        steps = {p.step for p in report.curves if p.dataset in group}
        set_steps(axis, sorted(steps))
    return figure


def _draw_published(axis: Axes, series: PublishedSeries) -> None:
    kind = "withdrawn" if series.withdrawn else "published"
    where = series.source.rpartition(", ")[2] if "ResultsTable" in series.source else "first README"
    axis.plot(
        *zip(*series.points, strict=True),
        color=COLORS[series.method],
        linestyle=":",
        marker=".",
        linewidth=1.4,
        label=f"{NAMES[series.method]}, {kind} ({where})",
    )


def _panels(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` plain axes, sizes in inches."""
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (width * columns, height * rows)
    figure = Figure(figsize=size, dpi=140)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    # Fixed margins: constrained layout takes seconds for many panels.
    figure.subplots_adjust(
        left=0.55 / size[0],
        right=1 - 0.15 / size[0],
        top=1 - 0.4 / size[1],
        bottom=0.35 / size[1],
        wspace=0.55 / (width - 0.55),
        hspace=0.75 / (height - 0.75),
    )
    for axis in axes[:count]:
        plain_axis(axis)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, list(axes[:count])
