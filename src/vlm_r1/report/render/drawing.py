"""Draws charts with matplotlib: as PNG and SVG files, and as SVG inside the page.

All lengths are pixels of 1/72 inch, which are the units of matplotlib's SVG. A position in a chart
is counted from its upper left corner.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.optimize import isotonic_regression

from vlm_r1.report.render.charts import STEPS, Chart, Curve

# Okabe and Ito's palette: told apart with every common color vision; markers differ as well.
COLORS = {"sft": "#d55e00", "grpo": "#0072b2", "difference": "#7a4a8c"}
INK, FAINT, GRID, PAPER, ALARM = "#222222", "#767676", "#e6e6e6", "#ffffff", "#b00020"
CSS_COLORS = {  # the page has a light and a dark theme
    COLORS["sft"]: "var(--sft)",
    COLORS["grpo"]: "var(--grpo)",
    COLORS["difference"]: "var(--difference)",
    FAINT: "var(--faint)",
    GRID: "var(--line)",
    PAPER: "var(--card)",
    ALARM: "var(--alarm)",
}
# The square is larger than the circle drawn over it, so that equal points show both.
MARKERS = {"sft": ("s", 8.0), "grpo": ("o", 6.5), "difference": ("D", 6.0)}
WIDTHS = {"solid": 2.4, "dashed": 1.6, "dotted": 1.6}
DASHES = {"solid": "-", "dashed": (0, (4.0, 2.5)), "dotted": (0, (1.0, 2.5))}
MOST_STEPS_SHOWN = 6
TICK_GAP = 28.0  # between steps written below a logarithmic axis
LABEL_GAP = 17.0  # between the labels at the ends of the curves
TITLE_HEIGHT, MARGIN = 26.0, 30.0  # room in files; the page has its titles in HTML


class Size(NamedTuple):
    """Size of a chart, the edges of its plot area, and its font size."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    font: float

    def place(self, chart: Chart, step: float, value: float) -> tuple[float, float]:
        """Position (x, y) of a value in the chart."""
        low, high = chart.y_range
        y = (value - low) / (high - low)
        x = self.left + (self.right - self.left) * chart.fraction(step)
        return x, self.bottom - (self.bottom - self.top) * y


LARGE = Size(480, 330, left=44, right=352, top=40, bottom=290, font=14)
SMALL = Size(240, 124, left=42, right=230, top=12, bottom=98, font=12)


class Mark(NamedTuple):
    """A point that the page's reader can point at, and what it then says."""

    method: str
    x: float
    y: float
    tip: str


def size_of(chart: Chart) -> Size:
    """Charts without a label on the y axis are small."""
    return LARGE if chart.y_label else SMALL


def save_figure(
    rows: list[list[Chart]], files: Sequence[Path], unfair: Sequence[str], caption: str
) -> None:
    """Write rows of charts, PNG or SVG by each file's name; equal charts give equal bytes.

    Args:
        unfair: terms that differ, "name: values"; a figure with any is stamped.
        caption: a line below all charts.
    """
    figure = _figure(rows, bool(unfair), TITLE_HEIGHT, MARGIN)
    height = 72 * figure.get_figheight()
    fields = ", ".join(line.partition(":")[0] for line in unfair)
    alarm = f"UNFAIR COMPARISON: {fields} differ" if unfair else ""
    plain = {"ha": "center", "parse_math": False}
    figure.text(0.5, 1 - 20 / height, alarm, plain, size=14, color=ALARM, weight="bold")
    figure.text(0.5, 10 / height, caption, plain, size=12, color=FAINT)
    for file in files:
        undated = {"Date": None} if file.suffix == ".svg" else {"Software": None}
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "vlm-r1"}):  # else random ids
            figure.savefig(file, metadata=undated, dpi=160)


def marks_of(chart: Chart) -> list[Mark]:
    """Every point that has a tip."""
    size = size_of(chart)
    return [
        Mark(curve.method, *size.place(chart, step, value), tip)
        for curve in chart.curves
        for (step, value), tip in zip(curve.points, curve.tips, strict=False)
    ]


def page_svg(chart: Chart, unfair: bool) -> Markup:
    """The content of the page's <svg> element of a chart, without its title and marks.

    Namespaces, document-wide styles and unused ids are removed from matplotlib's SVG, so that one
    page can hold several charts; colors become the page's CSS variables.
    """
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": chart.title + chart.summary}):
        _figure([[chart]], unfair).savefig(text, format="svg", transparent=True)
    root = ElementTree.fromstring(text.getvalue())
    for parent in root.iter():
        parent.tag = parent.tag.rpartition("}")[2]
        parent.attrib = {name.rpartition("}")[2]: value for name, value in parent.items()}
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    used = {link.removeprefix("#") for one in root.iter() if (link := one.get("href"))}
    for one in root.iter():
        if one.get("id") not in used:
            one.attrib.pop("id", None)
        if style := one.get("style"):
            one.set("style", _page_style(style, size_of(chart).font))
    return Markup("".join(ElementTree.tostring(child, encoding="unicode") for child in root))


def _page_style(style: str, font: float) -> str:
    """A style in the page's font and colors; only sizes other than the chart's `font` are kept."""
    values = dict(part.split(": ", 1) for part in style.split("; "))
    values.pop("font-family", None)
    if values.get("font-size") == f"{font:g}px":
        del values["font-size"]
    return "; ".join(f"{name}: {CSS_COLORS.get(value, value)}" for name, value in values.items())


def _figure(
    rows: list[list[Chart]], unfair: bool, title_height: float = 0, margin: float = 0
) -> Figure:
    """Charts of one size in rows, each below its title, with a margin on the left and below.

    The margin above is for the stamp of an unfair comparison.
    """
    size = size_of(rows[0][0])
    width = margin / 2 + size.width * max(map(len, rows))
    above = margin if unfair else margin / 3
    height = above + (size.height + title_height) * len(rows) + margin
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    plot = (size.right - size.left) / width, (size.bottom - size.top) / height
    for i, row in enumerate(rows):
        top = above + (size.height + title_height) * i + title_height
        for j, chart in enumerate(row):
            left = margin / 2 + size.width * j + size.left
            bottom = height - top - size.bottom
            axis = figure.add_axes((left / width, bottom / height, *plot))
            _draw_chart(axis, chart, unfair)
            if title_height:
                detail = f" ({chart.detail})" if chart.detail else ""
                _write(axis, chart.title + detail, size, (0, -4), color=INK, weight="bold")
    return figure


def _draw_chart(axis: Axes, chart: Chart, unfair: bool) -> None:
    size = size_of(chart)
    axis.set_xlim(0, 1)  # places are `Chart.fraction`
    axis.set_ylim(chart.y_range)
    _draw_ticks(axis, size, chart)
    if chart.y_range[0] < 0 < chart.y_range[1] and chart.zero_line:
        axis.axhline(0, color=FAINT, linewidth=1, zorder=1, clip_on=False)
    for curve in chart.curves:
        _draw_curve(axis, chart, curve)
    labeled = [curve for curve in chart.curves if curve.label]
    heights = [size.place(chart, *curve.points[-1])[1] for curve in labeled]
    for curve, height in zip(labeled, spread(heights, LABEL_GAP), strict=True):
        weight = "bold" if curve.style == "solid" else "normal"
        at = (size.right + 14, height + 5)
        _write(axis, curve.label, size, at, color=COLORS[curve.method], weight=weight)
    if chart.y_label:
        _write(axis, chart.y_label, size, (0, 14), color=FAINT)
        middle = (size.left + size.right) / 2
        label = f"{chart.x_label} (logarithmic)" if chart.log_x else chart.x_label
        _write(axis, label, size, (middle, size.bottom + 38), color=FAINT, ha="center")
    if unfair:
        axis.text(
            0.5, 0.5, "UNFAIR", transform=axis.transAxes, rotation=22, rotation_mode="anchor",
            ha="center", va="center", color=ALARM, alpha=0.22, fontweight="bold", zorder=10,
            fontsize=(size.right - size.left) / 5,
        )  # fmt: skip


def _write(axis: Axes, text: str, size: Size, at: tuple[float, float], **style: Any) -> None:
    """Write `text` as it stands ($ starts no formula), its baseline at a position in the chart."""
    offset = (at[0] - size.left, size.top - at[1])
    style |= {"fontsize": size.font, "parse_math": False}
    axis.annotate(text, (0, 1), offset, "axes fraction", "offset points", **style)


def _draw_ticks(axis: Axes, size: Size, chart: Chart) -> None:
    """Faint lines across; evaluated steps below, of many only some; step 0 is the base."""
    steps = chart.steps
    shown = steps[:: math.ceil(len(steps) / MOST_STEPS_SHOWN)]
    if size == SMALL:
        shown = [steps[0], steps[-1]]
    elif chart.log_x:
        shown = _steps_apart(chart, TICK_GAP / (size.right - size.left))
    names = ["0 (base)" if step == 0 else f"{step:g}" for step in shown]
    axis.set_xticks([chart.fraction(step) for step in shown], names)
    axis.yaxis.set_major_locator(MaxNLocator(7 if size == LARGE else 2, steps=[1, 2, 5, 10]))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    axis.tick_params(labelcolor=FAINT, labelsize=size.font, bottom=False, left=False)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set(color=FAINT, alpha=0.6)
    axis.grid(axis="y", color=GRID, linewidth=1, clip_on=False)
    axis.set_axisbelow(True)


def _steps_apart(chart: Chart, gap: float) -> list[float]:
    """Steps that are at least `gap` (a fraction of the axis) apart, the last one among them.

    On an axis of costs, which are no round numbers, powers of ten stand in for them.
    """
    steps = chart.steps
    if chart.x_label != STEPS:
        powers = [10.0**k for k in range(-3, 16)]
        steps = [0.0, *(power for power in powers if steps[1] <= power <= steps[-1])]
    shown = [steps[-1]]
    for step in reversed(steps[:-1]):
        if chart.fraction(shown[-1]) - chart.fraction(step) >= gap:
            shown.append(step)
    return shown[::-1]


def _draw_curve(axis: Axes, chart: Chart, curve: Curve) -> None:
    """Line, band and points, unclipped: so points on the edge stay whole."""
    color, (marker, marker_size) = COLORS[curve.method], MARKERS[curve.method]
    solid = curve.style == "solid"
    steps, values = zip(*curve.points, strict=True)
    places = [chart.fraction(step) for step in steps]
    if curve.band:
        low, high = zip(*curve.band, strict=True)
        axis.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0, clip_on=False)
    axis.plot(
        places, values, color=color, linewidth=WIDTHS[curve.style], linestyle=DASHES[curve.style],
        zorder=3 if solid else 2, clip_on=False,
    )  # fmt: skip
    for step, place, value, _ in zip(steps, places, values, curve.tips, strict=False):
        axis.plot(
            place, value, marker=marker, markersize=marker_size if solid else 2.5, linestyle="",
            color=color, markerfacecolor=PAPER if step == 0 else color, markeredgewidth=1.8,
            zorder=4, clip_on=False,
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved apart where they are nearer than `gap`, and no further; their order is kept.

    Example: 100, 104, 200 with a gap of 17 -> 93.5, 110.5, 200
    """
    order = np.argsort(heights, kind="stable")
    shift = gap * np.arange(len(heights))
    places = np.empty(len(heights))
    places[order] = isotonic_regression(np.asarray(heights)[order] - shift).x + shift
    return [float(place) for place in places]
