"""curves.png and .svg: raw and corrected accuracy, in domain above, out of domain below."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vlm_r1.report.results_table import TESTED
from vlm_r1.report.schema import CurvePoint, Report
from vlm_r1.report.verdict import NAMES, PLACES

# Okabe and Ito's palette: told apart with every common color vision; markers differ as well.
COLORS = {"sft": "#D55E00", "grpo": "#0072B2"}
MARKERS = {"sft": "s", "grpo": "o"}
INK, FAINT = "#222222", "#767676"
PANEL_INCHES = (6.8, 3.4)
LEAST_SPAN_POINTS = 12.0  # a panel's height; less would make noise look like a trend
MOST_TICKS = 9
LABEL_GAP = 0.075  # of a panel's height, between the labels at the end
LEAST_LABELLED_POINTS = 1.0  # a dashed curve that ends nearer to its solid one gets no label
DASHES = (4, 2)


class Label(NamedTuple):
    """What stands beside the end of a curve; `height` in percent."""

    text: str
    step: int
    height: float
    color: str
    weight: str


def draw_curves(report: Report, *files: Path) -> None:
    """Write the figure, PNG or SVG by each file's name; the same report gives the same bytes.

    Solid with a band: accuracy and its interval; dashed: the same with box coordinates corrected.
    Hollow markers are step 0, the base under each method's prompt. A report that is marked unfair
    gives a stamped figure.
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
    _explain_lines(figure)
    save(figure, report, files)


def save(figure: Figure, report: Report, files: Iterable[Path]) -> None:
    """Write a figure without date or name of the software; stamped if the report is unfair."""
    if report.unfair:
        _stamp(figure, report.unfair)
    for file in files:
        undated = {"Date": None} if file.suffix == ".svg" else {"Software": None}
        with rc_context({"svg.hashsalt": "vlm-r1"}):  # ids in the SVG are random without it
            figure.savefig(file, metadata=undated)
        figure.set_layout_engine("none")  # where things stand is known now; asking again is slow


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
    plain_axis(axis)
    set_steps(axis, sorted({point.step for point in points}))
    _set_limits(axis, points)
    _label_ends(axis, ends)


def plain_axis(axis: Axes) -> None:
    """Two faint spines and faint lines across."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#BBBBBB")
    axis.tick_params(colors=FAINT)
    axis.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axis.set_axisbelow(True)


def _draw_curve(axis: Axes, method: str, curve: list[CurvePoint]) -> None:
    steps = [point.step for point in curve]
    accuracy = [point.accuracy for point in curve]
    color, marker = COLORS[method], MARKERS[method]
    low, high = [p.ci_low for p in curve], [p.ci_high for p in curve]
    axis.fill_between(steps, low, high, color=color, alpha=0.14, linewidth=0)
    fills = ["white" if step == 0 else color for step in steps]
    axis.plot(steps, accuracy, color=color, linewidth=2.2, zorder=3)
    corrected = [point.corrected_accuracy for point in curve]
    axis.plot(steps, corrected, color=color, linewidth=1.5, dashes=DASHES, zorder=2)
    # The markers of the second method are smaller, so that equal points show both.
    size = {"sft": 52, "grpo": 30}[method]
    axis.scatter(
        steps, accuracy, s=size, c=fills, edgecolors=color, marker=marker, linewidths=1.6, zorder=4
    )


def _explain_lines(figure: Figure) -> None:
    lines = [
        Line2D([], [], color=FAINT, linewidth=2.2, label="boxes as answered"),
        Line2D([], [], color=FAINT, linewidth=1.5, dashes=DASHES, label="coordinates corrected"),
    ]
    figure.legend(
        handles=lines, loc="outside lower center", ncols=2, frameon=False, labelcolor=FAINT
    )


def set_steps(axis: Axes, steps: list[int]) -> None:
    """A tick at every evaluated step, or at some of them where they are many."""
    shown = steps[:: math.ceil(len(steps) / MOST_TICKS)]
    axis.set_xticks(shown, ["0 (base)" if step == 0 else str(step) for step in shown])


def _set_limits(axis: Axes, points: list[CurvePoint]) -> None:
    low = min(min(p.ci_low, p.corrected_accuracy) for p in points)
    high = max(max(p.ci_high, p.corrected_accuracy) for p in points)
    missing = max(0.0, LEAST_SPAN_POINTS - (high - low)) / 2
    margin = 0.06 * max(high - low, LEAST_SPAN_POINTS)
    axis.set_ylim(max(-2.0, low - missing - margin), min(102.0, high + missing + margin))
    last = max(point.step for point in points) or 1
    axis.set_xlim(-0.04 * last, 1.38 * last)  # room for the labels at the end


def _label_ends(axis: Axes, ends: dict[str, CurvePoint]) -> None:
    """Each curve's name and last accuracy beside its end, moved apart where they would touch."""
    bottom, top = axis.get_ylim()
    labels = [label for method, point in ends.items() for label in _labels(method, point)]
    for step in {label.step for label in labels}:
        context = sorted((x for x in labels if x.step == step), key=lambda label: label.height)
        heights = _spread([label.height for label in context], LABEL_GAP * (top - bottom))
        for label, height in zip(context, heights, strict=True):
            axis.annotate(
                label.text,
                (step, height),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                color=label.color,
                fontweight=label.weight,
            )


def _labels(method: str, end: CurvePoint) -> list[Label]:
    """The label of the solid curve, and of the dashed one where it ends elsewhere."""
    name, color, corrected = NAMES[method], COLORS[method], end.corrected_accuracy
    labels = [Label(f"{name} {end.accuracy:.1f}", end.step, end.accuracy, color, "bold")]
    if abs(corrected - end.accuracy) >= LEAST_LABELLED_POINTS:
        text = f"{name} corrected {corrected:.1f}"
        labels.append(Label(text, end.step, corrected, color, "normal"))
    return labels


def _spread(heights: list[float], gap: float) -> list[float]:
    """Ascending heights moved apart to `gap` or more, their mean kept."""
    spread: list[float] = []
    for height in heights:
        spread.append(max(height, spread[-1] + gap) if spread else height)
    shift = (sum(spread) - sum(heights)) / len(heights)
    return [height - shift for height in spread]


def _stamp(figure: Figure, unfair: list[str]) -> None:
    fields = ", ".join(line.partition(":")[0] for line in unfair)
    figure.suptitle(f"UNFAIR COMPARISON: {fields} differ", color="#B00020", fontweight="bold")
    figure.text(
        0.5, 0.5, "UNFAIR", color="#B00020", alpha=0.13, fontsize=90, rotation=30,
        ha="center", va="center", fontweight="bold", zorder=10,
    )  # fmt: skip
