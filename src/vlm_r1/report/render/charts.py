"""What each chart of a report shows; `drawing` draws it, for the page and for paper."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vlm_r1.report.published_curves import our_curve
from vlm_r1.report.schema import CurvePoint, GainLine, Report, TrainingLog
from vlm_r1.report.training import QUANTITIES
from vlm_r1.report.wording import NAMES, PLACES, points

LEAST_SPAN_POINTS = 12.0  # an axis of percent; less would make noise look like a trend
UNEVEN = 4.0  # steps whose largest gap is so many smallest ones are drawn on a logarithmic axis
STEPS = "training step"
LEAST_LABELED_POINTS = 1.0  # a dashed curve that ends nearer to its solid one gets no label


class Curve(NamedTuple):
    """One line of a chart, with its optional band, points and label."""

    method: str
    style: str  # "solid", "dashed" or "dotted"
    points: Sequence[tuple[float, float]]  # (step or cost, value)
    band: Sequence[tuple[float, float]] = ()  # (low, high) at each point
    tips: Sequence[str] = ()  # what each point says on the page; without them no point is marked
    label: str = ""  # beside the curve's end


@dataclass(frozen=True)
class Chart:
    """A chart of value against training step, or against what training has cost.

    Attributes:
        detail: fainter words behind the title.
        summary: what the chart shows, for those who cannot see it.
        y_label: what is on the y axis; charts without one are small.
        zero_line: whether 0 is marked.
        log_x: whether the x axis is logarithmic, from its second point on.
    """

    title: str
    detail: str
    summary: str
    curves: list[Curve]
    y_range: tuple[float, float]
    y_label: str = ""
    zero_line: bool = False
    log_x: bool = False
    x_label: str = STEPS

    @property
    def steps(self) -> list[float]:
        """Every step (or cost) that has a point."""
        return sorted({step for curve in self.curves for step, _ in curve.points})

    def stretch(self, step: float) -> float:
        """Distance of `step` from step 0 along the axis: logarithmic from the first step on.

        Example: log_x, steps 0, 2, 6, 30 -> 0, 1, 2, 4
        """
        first = next((one for one in self.steps if one > 0), 1)
        return math.log2(1 + step / first) if self.log_x else step

    def fraction(self, step: float) -> float:
        """Place of `step` on the x axis, 0 to 1."""
        low, high = self.stretch(self.steps[0]), self.stretch(self.steps[-1])
        return (self.stretch(step) - low) / (high - low or 1)


def curve_charts(report: Report) -> list[Chart]:
    """Accuracy against step, one chart per test dataset, in domain first."""
    tested = [dataset for dataset in report.datasets if dataset.role in PLACES]
    return [_curve_chart(report, dataset.name, PLACES[dataset.role]) for dataset in tested]


def gain_charts(report: Report) -> list[Chart]:
    """GRPO minus SFT against step, gains and as the checkpoints stand; none without gains."""
    tested = [dataset for dataset in report.datasets if dataset.role in PLACES]
    return [_gain_chart(report, d.name, PLACES[d.role]) for d in tested if _gains(report, d.name)]


def published_charts(report: Report) -> list[Chart]:
    """This report's curves and VLM-R1's published ones, one chart per group of datasets."""
    groups = dict.fromkeys(tuple(series.datasets) for series in report.published)
    return [_published_chart(report, group) for group in groups]


def training_charts(log: TrainingLog) -> list[Chart]:
    """One small chart per logged quantity."""
    return [_training_chart(log.method, name, curve) for name, curve in log.quantities.items()]


def is_uneven(steps: Sequence[int]) -> bool:
    """Whether steps lie so unevenly that a linear axis would show some of them as one.

    Example: 0, 2, 5, 10, 20 -> gaps from 2 to 10: True; 0, 20, 40, 60 -> False
    """
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    return len(gaps) > 1 and max(gaps) >= UNEVEN * min(gaps)


def percent_range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis of percent that holds all values with some room, at least 12 points apart."""
    low, high = min(values), max(values)
    spare = max(0.0, LEAST_SPAN_POINTS - (high - low)) / 2
    room = 0.06 * max(high - low, LEAST_SPAN_POINTS)
    return max(-2.0, low - spare - room), min(102.0, high + spare + room)


def _curve_chart(report: Report, dataset: str, place: str) -> Chart:
    measured = [point for point in report.curves if point.dataset == dataset]
    by_method = {m: [point for point in measured if point.method == m] for m in NAMES}
    ends = [x for p in measured for x in (p.ci_low, p.ci_high, p.corrected_accuracy)]
    return Chart(
        title=f"{place.capitalize()} · {dataset}",
        detail=f"n = {measured[0].n:,}",
        summary="; ".join(
            f"{NAMES[m]} {curve[0].accuracy:.1f} % at step {curve[0].step}, "
            f"{curve[-1].accuracy:.1f} % at step {curve[-1].step}"
            for m, curve in by_method.items()
        ),
        curves=[line for m, curve in by_method.items() for line in _accuracy_curves(m, curve)],
        y_range=percent_range(ends),
        y_label="accuracy, % (IoU > 0.5)",
        log_x=is_uneven(sorted({point.step for point in measured})),
    )


def _accuracy_curves(method: str, curve: list[CurvePoint]) -> Iterator[Curve]:
    """Dashed: box coordinates corrected. Solid with a band: boxes as answered."""
    end, name = curve[-1], NAMES[method]
    corrected = [(p.step, p.corrected_accuracy) for p in curve]
    apart = abs(end.corrected_accuracy - end.accuracy) >= LEAST_LABELED_POINTS
    label = f"corrected {end.corrected_accuracy:.1f}" if apart else ""
    yield Curve(method, "dashed", corrected, label=label)
    yield Curve(
        method,
        "solid",
        [(p.step, p.accuracy) for p in curve],
        band=[(p.ci_low, p.ci_high) for p in curve],
        tips=[_tip(name, p) for p in curve],
        label=f"{name} {end.accuracy:.1f}",
    )


def _tip(name: str, point: CurvePoint) -> str:
    text = (
        f"{name}, step {point.step}: {point.accuracy:.1f} % "
        f"({point.ci_low:.1f} to {point.ci_high:.1f})"
    )
    if abs(point.corrected_accuracy - point.accuracy) >= LEAST_LABELED_POINTS:
        text += f", corrected {point.corrected_accuracy:.1f}"
    return text


def _gains(report: Report, dataset: str) -> list[GainLine]:
    return [line for line in report.gains if line.dataset == dataset]


def _gain_chart(report: Report, dataset: str, place: str) -> Chart:
    """Solid with a band: difference of gains, 0 at step 0. Dashed: difference of accuracies."""
    gains = _gains(report, dataset)
    raw = [(c.step, c.difference) for c in report.comparisons if c.dataset == dataset]
    gained = [(0, 0.0), *((gain.step, gain.difference) for gain in gains)]
    band = [(0.0, 0.0), *((gain.ci_low, gain.ci_high) for gain in gains)]
    last = gains[-1]
    return Chart(
        title=f"{place.capitalize()} · {dataset}",
        detail="GRPO minus SFT",
        summary=f"difference of gains {points(last.difference)} points at step {last.step}, as the "
        f"checkpoints stand {points(raw[-1][1])}",
        curves=[
            Curve("difference", "dashed", raw, label=f"as they stand {points(raw[-1][1])}"),
            Curve(
                "difference",
                "solid",
                gained,
                band=band,
                tips=["step 0: no gain yet", *map(_gain_tip, gains)],
                label=f"gains {points(last.difference)}",
            ),
        ],
        y_range=points_range([end for ends in band for end in ends] + [value for _, value in raw]),
        y_label="points, GRPO ahead above 0",
        zero_line=True,
        log_x=is_uneven([step for step, _ in gained]),
    )


def points_range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis of points that holds 0 and all values with some room."""
    low, high = min(0.0, *values), max(0.0, *values)
    room = 0.06 * max(high - low, LEAST_SPAN_POINTS)
    spare = max(0.0, LEAST_SPAN_POINTS - (high - low)) / 2
    return low - spare - room, high + spare + room


def _gain_tip(gain: GainLine) -> str:
    return (
        f"step {gain.step}: GRPO gained {points(gain.difference)} points relative to SFT "
        f"({points(gain.ci_low)} to {points(gain.ci_high)})"
    )


def _published_chart(report: Report, group: tuple[str, ...]) -> Chart:
    published = [series for series in report.published if tuple(series.datasets) == group]
    curves = []
    for series in published:
        kind = "withdrawn" if series.withdrawn else "published"
        name = f"{NAMES[series.method]} as {kind}"
        label = f"{kind} {series.points[-1][1]:g}"
        curves.append(_plain_curve(series.method, "dotted", series.points, name, label))
    for method, name in NAMES.items():
        ours = our_curve(report.curves, method, group)
        label = f"{name} {ours[-1][1]:.1f}"
        curves.append(_plain_curve(method, "solid", ours, f"{name} here", label))
    return Chart(
        title=group[0] if len(group) == 1 else f"mean of {', '.join(group)}",
        detail="",
        summary=", ".join(dict.fromkeys(series.source for series in published)),
        curves=curves,
        y_range=percent_range([value for curve in curves for _, value in curve.points]),
        y_label="accuracy, %",
    )


def _plain_curve(
    method: str, style: str, points: list[tuple[int, float]], name: str, label: str
) -> Curve:
    tips = [f"{name}, step {step}: {value:.1f} %" for step, value in points]
    return Curve(method, style, points, tips=tips, label=label)


def _training_chart(method: str, name: str, curve: list[tuple[int, float]]) -> Chart:
    values = [value for _, value in curve]
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.5
    (first_step, first), (last_step, last) = curve[0], curve[-1]
    return Chart(
        title=QUANTITIES[name],
        detail=f"{first:.3g} to {last:.3g}",
        summary=f"{NAMES[method]}: {first:.3g} at step {first_step}, {last:.3g} at step "
        f"{last_step}, lowest {low:.3g}, highest {high:.3g}",
        curves=[Curve(method, "solid", curve)],
        y_range=(low - room, high + room),
    )
