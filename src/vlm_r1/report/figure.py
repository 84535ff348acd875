"""curves.png: accuracy against training step, in domain above, out of domain below."""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vlm_r1.report.schema import CurvePoint, Report
from vlm_r1.report.units import TESTED
from vlm_r1.report.verdict import NAMES, PLACES

# Okabe and Ito's palette: told apart with every common colour vision; markers differ as well.
COLORS = {"sft": "#D55E00", "grpo": "#0072B2"}
MARKERS = {"sft": "s", "grpo": "o"}
INK, FAINT = "#222222", "#767676"
PANEL_INCHES = (6.8, 3.4)
LEAST_SPAN_POINTS = 12.0  # a panel's height; less would make noise look like a trend
MOST_TICKS = 9
LABEL_GAP = 0.075  # of a panel's height, between the two labels at the end


def draw_curves(report: Report, path: Path) -> None:
    """Write the figure as PNG; the same report gives the same bytes.

    Bands are the report's intervals, hollow markers are step 0, the base under each method's
    prompt. A report that is marked unfair gives a stamped figure.
    """
    rows = [[d.name for d in report.datasets if d.role == role] for role in TESTED]
    rows = [names for names in rows if names]
    columns = max(len(names) for names in rows)
    size = (PANEL_INCHES[0] * columns, PANEL_INCHES[1] * len(rows))
    figure = Figure(figsize=size, dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1, hspace=0.06)
    panels = figure.subplots(len(rows), columns, squeeze=False)
    role_of = {dataset.name: dataset.role for dataset in report.datasets}
    for names, axes in zip(rows, panels, strict=True):
        for axis in axes[len(names) :]:
            axis.set_visible(False)
        for name, axis in zip(names, axes, strict=False):
            points = [point for point in report.curves if point.dataset == name]
            _draw_panel(axis, points, f"{PLACES[role_of[name]].capitalize()} · {name}")
    if report.unfair:
        _stamp(figure, report.unfair)
    figure.savefig(path, metadata={"Software": None})


def _draw_panel(axis: Axes, points: list[CurvePoint], title: str) -> None:
    ends = {}
    for method in NAMES:
        curve = [point for point in points if point.method == method]
        if curve:
            _draw_curve(axis, method, curve)
            ends[method] = curve[-1]
    axis.set_title(f"{title} (n = {points[0].n})", loc="left", color=INK, fontweight="bold")
    axis.set_xlabel("training step", color=FAINT)
    axis.set_ylabel("accuracy, % at IoU > 0.5", color=FAINT)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#BBBBBB")
    axis.tick_params(colors=FAINT)
    axis.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axis.set_axisbelow(True)
    _set_ticks(axis, sorted({point.step for point in points}))
    _set_limits(axis, points)
    _label_ends(axis, ends)


def _draw_curve(axis: Axes, method: str, curve: list[CurvePoint]) -> None:
    steps = [point.step for point in curve]
    accuracy = [point.accuracy for point in curve]
    color, marker = COLORS[method], MARKERS[method]
    low, high = [p.ci_low for p in curve], [p.ci_high for p in curve]
    axis.fill_between(steps, low, high, color=color, alpha=0.14, linewidth=0)
    fills = ["white" if step == 0 else color for step in steps]
    axis.plot(steps, accuracy, color=color, linewidth=2.2, zorder=3)
    # The markers of the second method are smaller, so that equal points show both.
    size = {"sft": 52, "grpo": 30}[method]
    axis.scatter(
        steps, accuracy, s=size, c=fills, edgecolors=color, marker=marker, linewidths=1.6, zorder=4
    )


def _set_ticks(axis: Axes, steps: list[int]) -> None:
    """A tick at every evaluated step, or at some of them where they are many."""
    shown = steps[:: math.ceil(len(steps) / MOST_TICKS)]
    axis.set_xticks(shown, ["0 (base)" if step == 0 else str(step) for step in shown])


def _set_limits(axis: Axes, points: list[CurvePoint]) -> None:
    low, high = min(p.ci_low for p in points), max(p.ci_high for p in points)
    missing = max(0.0, LEAST_SPAN_POINTS - (high - low)) / 2
    margin = 0.06 * max(high - low, LEAST_SPAN_POINTS)
    axis.set_ylim(max(-2.0, low - missing - margin), min(102.0, high + missing + margin))
    last = max(point.step for point in points) or 1
    axis.set_xlim(-0.04 * last, 1.2 * last)  # room for the labels at the end


def _label_ends(axis: Axes, ends: dict[str, CurvePoint]) -> None:
    """Each curve's name and last accuracy beside its end, moved apart where they would touch."""
    bottom, top = axis.get_ylim()
    gap = LABEL_GAP * (top - bottom)
    heights = {method: point.accuracy for method, point in ends.items()}
    if len(ends) == 2 and ends["sft"].step == ends["grpo"].step:
        upper, lower = sorted(heights, key=heights.__getitem__, reverse=True)
        lacking = max(0.0, gap - (heights[upper] - heights[lower])) / 2
        heights[upper] += lacking
        heights[lower] -= lacking
    for method, point in ends.items():
        axis.annotate(
            f"{NAMES[method]} {point.accuracy:.1f}",
            (point.step, heights[method]),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=COLORS[method],
            fontweight="bold",
        )


def _stamp(figure: Figure, unfair: list[str]) -> None:
    fields = ", ".join(line.partition(":")[0] for line in unfair)
    figure.suptitle(f"UNFAIR COMPARISON: {fields} differ", color="#B00020", fontweight="bold")
    figure.text(
        0.5, 0.5, "UNFAIR", color="#B00020", alpha=0.13, fontsize=90, rotation=30,
        ha="center", va="center", fontweight="bold", zorder=10,
    )  # fmt: skip
