"""Geometry of the page's charts: where lines, bands, ticks and labels stand, in SVG units.

The template only draws. Charts are narrow, so that their text stays readable on a phone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vlm_r1.report.published_curves import our_curve
from vlm_r1.report.schema import CurvePoint, Report, TrainingLog
from vlm_r1.report.training import QUANTITIES
from vlm_r1.report.verdict import NAMES, PLACES

LEAST_SPAN_POINTS = 12.0  # an axis of percent; less would make noise look like a trend
LEAST_LABELLED_POINTS = 1.0  # a dashed curve that ends nearer to its solid one gets no label
MOST_STEPS_SHOWN = 6
LABEL_GAP = 17.0  # between the labels at the end of the curves


@dataclass(frozen=True)
class PlotArea:
    """A chart's plot area and what its ends stand for."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        """Where a step stands."""
        low, high = self.x_range
        return round(self.left + (self.right - self.left) * (value - low) / (high - low or 1), 1)

    def y(self, value: float) -> float:
        """Where a value stands; up is more."""
        low, high = self.y_range
        return round(self.bottom - (self.bottom - self.top) * (value - low) / (high - low or 1), 1)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        """`points` of an SVG polyline or polygon."""
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)


@dataclass(frozen=True)
class Mark:
    """A point one can hover over or reach by the keyboard, and what it then says."""

    x: float
    y: float
    hollow: bool
    text: str


@dataclass(frozen=True)
class Line:
    """A curve; `css` says whose it is and how it is drawn."""

    css: str
    path: str
    band: str = ""
    marks: Sequence[Mark] = ()


@dataclass(frozen=True)
class Label:
    """Words beside the end of a curve."""

    text: str
    x: float
    y: float
    css: str


@dataclass(frozen=True)
class Chart:
    """A chart, ready to be drawn. `summary` tells those who do not see it."""

    name: str
    title: str
    summary: str
    area: PlotArea
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    labels: list[Label]
    detail: str = ""  # beside the title


def curve_charts(report: Report) -> list[Chart]:
    """Accuracy against step, one chart a tested dataset."""
    tested = [dataset for dataset in report.datasets if dataset.role in PLACES]
    return [_curve_chart(report, dataset.name, PLACES[dataset.role]) for dataset in tested]


def published_charts(report: Report) -> list[Chart]:
    """Our curves and VLM-R1's published ones in the same axes, one chart a group of datasets."""
    groups = dict.fromkeys(tuple(series.datasets) for series in report.published)
    return [_published_chart(report, group) for group in groups]


def training_charts(log: TrainingLog) -> list[Chart]:
    """One small chart for each logged quantity."""
    return [_training_chart(log.method, name, curve) for name, curve in log.quantities.items()]


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` round values from `low` to `high`.

    Example: 31.2 to 88.9 -> 40, 60, 80
    """
    rough = (high - low) / (most - 1) or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * i, 10) for i in range(first, last + 1)]


def percent_range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis of percent that holds all values with some room, at least 12 points apart."""
    low, high = min(values), max(values)
    spare = max(0.0, LEAST_SPAN_POINTS - (high - low)) / 2
    room = 0.06 * max(high - low, LEAST_SPAN_POINTS)
    return max(-2.0, low - spare - room), min(102.0, high + spare + room)


def _large(steps: Sequence[int], values: Sequence[float]) -> PlotArea:
    return PlotArea(480, 330, 44, 352, 40, 290, (0, max(steps) or 1), percent_range(values))


def _curve_chart(report: Report, dataset: str, place: str) -> Chart:
    points = [point for point in report.curves if point.dataset == dataset]
    ends = [x for p in points for x in (p.ci_low, p.ci_high, p.corrected_accuracy)]
    area = _large([point.step for point in points], ends)
    lines, labels = [], []
    for method in NAMES:
        curve = [point for point in points if point.method == method]
        lines += _curve_lines(area, method, curve)
        labels += _end_labels(area, method, curve[-1])
    told = "; ".join(
        f"{NAMES[m]} {c[0].accuracy:.1f} % at step {c[0].step}, {c[-1].accuracy:.1f} % at step "
        f"{c[-1].step}"
        for m in NAMES
        if (c := [point for point in points if point.method == m])
    )
    return _chart(f"curve-{dataset}", f"{place.capitalize()} · {dataset}", told, area, points,
                  lines, labels)  # fmt: skip


def _curve_lines(area: PlotArea, method: str, curve: list[CurvePoint]) -> list[Line]:
    """Dashed below, then the solid one with its band and marks."""
    corrected = [(p.step, p.corrected_accuracy) for p in curve]
    band = [(p.step, p.ci_high) for p in curve] + [(p.step, p.ci_low) for p in curve[::-1]]
    marks = [
        Mark(area.x(p.step), area.y(p.accuracy), p.step == 0, _mark_text(method, p)) for p in curve
    ]
    solid = area.path([(p.step, p.accuracy) for p in curve])
    return [
        Line(f"{method} dashed", area.path(corrected)),
        Line(f"{method} solid", solid, area.path(band), marks),
    ]


def _mark_text(method: str, point: CurvePoint) -> str:
    text = (
        f"{NAMES[method]}, step {point.step}: {point.accuracy:.1f} % "
        f"({point.ci_low:.1f} to {point.ci_high:.1f})"
    )
    if abs(point.corrected_accuracy - point.accuracy) >= LEAST_LABELLED_POINTS:
        text += f", corrected {point.corrected_accuracy:.1f}"
    return text


def _end_labels(area: PlotArea, method: str, end: CurvePoint) -> list[Label]:
    x, name, corrected = area.right + 10, NAMES[method], end.corrected_accuracy
    labels = [Label(f"{name} {end.accuracy:.1f}", x, area.y(end.accuracy), f"{method} end")]
    if abs(corrected - end.accuracy) >= LEAST_LABELLED_POINTS:
        labels.append(Label(f"corrected {corrected:.1f}", x, area.y(corrected), method))
    return labels


def _published_chart(report: Report, group: tuple[str, ...]) -> Chart:
    series = [one for one in report.published if tuple(one.datasets) == group]
    ours = {method: our_curve(report.curves, method, group) for method in NAMES}
    every = [*(p for one in series for p in one.points), *(p for c in ours.values() for p in c)]
    area = _large([step for step, _ in every], [value for _, value in every])
    lines, labels = [], []
    for one in series:
        kind = "withdrawn" if one.withdrawn else "published"
        marks = _plain_marks(area, f"{NAMES[one.method]} as {kind}", one.points)
        lines.append(Line(f"{one.method} dotted", area.path(one.points), marks=marks))
        value = one.points[-1][1]
        labels.append(Label(f"{kind} {value:g}", area.right + 10, area.y(value), one.method))
    for method, curve in ours.items():
        marks = _plain_marks(area, f"{NAMES[method]} here", curve)
        lines.append(Line(f"{method} solid", area.path(curve), marks=marks))
        value = curve[-1][1]
        text = f"{NAMES[method]} {value:.1f}"
        labels.append(Label(text, area.right + 10, area.y(value), f"{method} end"))
    name = group[0] if len(group) == 1 else f"mean of {', '.join(group)}"
    sources = ", ".join(dict.fromkeys(one.source for one in series))
    return _chart(f"published-{group[0]}-{len(group)}", name, sources, area, every, lines, labels)


def _plain_marks(area: PlotArea, who: str, points: Sequence[tuple[int, float]]) -> list[Mark]:
    return [
        Mark(area.x(step), area.y(value), step == 0, f"{who}, step {step}: {value:.1f} %")
        for step, value in points
    ]


def _chart(
    name: str,
    title: str,
    summary: str,
    area: PlotArea,
    points: Sequence[CurvePoint | tuple[int, float]],
    lines: list[Line],
    labels: list[Label],
) -> Chart:
    steps = sorted({p.step if isinstance(p, CurvePoint) else p[0] for p in points})
    shown = steps[:: math.ceil(len(steps) / MOST_STEPS_SHOWN)]
    return Chart(
        name=name,
        title=title,
        summary=summary,
        area=area,
        x_ticks=[(area.x(step), str(step)) for step in shown],
        y_ticks=[(area.y(value), f"{value:g}") for value in ticks(*area.y_range)],
        lines=lines,
        labels=spread(labels),
    )


def spread(labels: list[Label]) -> list[Label]:
    """Labels above each other moved apart where they would touch, and no further."""
    groups: list[list[Label]] = []
    for label in sorted(labels, key=lambda one: one.y):
        groups.append([label])
        while len(groups) > 1 and _heights(groups[-1])[0] - _heights(groups[-2])[-1] < LABEL_GAP:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [
        replace(label, y=round(y, 1))
        for group in groups
        for label, y in zip(group, _heights(group), strict=True)
    ]


def _heights(group: list[Label]) -> list[float]:
    """Where the labels of a group stand: evenly, around the middle of where they would stand."""
    first = sum(label.y for label in group) / len(group) - LABEL_GAP * (len(group) - 1) / 2
    return [first + LABEL_GAP * i for i in range(len(group))]


def _training_chart(method: str, name: str, curve: list[tuple[int, float]]) -> Chart:
    values = [value for _, value in curve]
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.5
    steps = (curve[0][0], curve[-1][0])
    area = PlotArea(240, 120, 8, 232, 14, 96, steps, (low - room, high + room))
    (first_step, first), (last_step, last) = curve[0], curve[-1]
    summary = (
        f"{NAMES[method]}, {QUANTITIES[name]}: {first:.3g} at step {first_step}, {last:.3g} at "
        f"step {last_step}, lowest {low:.3g}, highest {high:.3g}"
    )
    return Chart(
        name=f"training-{method}-{name}",
        title=QUANTITIES[name],
        summary=summary,
        area=area,
        x_ticks=[(area.x(step), str(step)) for step in steps],
        y_ticks=[],
        lines=[Line(f"{method} solid", area.path(curve))],
        labels=[],
        detail=f"{first:.3g} to {last:.3g}",
    )
