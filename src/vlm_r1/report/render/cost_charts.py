"""Charts of accuracy against what training had cost: FLOPs, tokens, seconds."""

from collections.abc import Callable

from vlm_r1.report.render.charts import Chart, Curve, percent_range
from vlm_r1.report.schema import ComputePoint, Report
from vlm_r1.report.wording import NAMES

PREFIXES = ("", "thousand ", "million ", "billion ", "trillion ")
FLOPS_PREFIXES = ("", "kilo", "mega", "giga", "tera", "peta", "exa", "zetta")


def flops_charts(report: Report) -> list[Chart]:
    """Accuracy against FLOPs, one chart per test dataset."""
    return [_chart(report, name, "flops") for name in _datasets(report)]


def other_cost_charts(report: Report) -> list[Chart]:
    """Accuracy against tokens and against seconds, per test dataset."""
    return [_chart(report, n, cost) for n in _datasets(report) for cost in ("tokens", "seconds")]


def flops_text(flops: float) -> str:
    """FLOPs with a metric prefix: 1.31e12 -> "1.31 teraFLOPs"."""
    scaled, prefix = _scaled(flops, FLOPS_PREFIXES)
    return f"{scaled:.3g} {prefix}FLOPs"


def _datasets(report: Report) -> list[str]:
    return list(dict.fromkeys(point.dataset for point in report.compute.points))


def _chart(report: Report, dataset: str, cost: str) -> Chart:
    points = [point for point in report.compute.points if point.dataset == dataset]
    most = max(getattr(point, cost) for point in points)
    unit, label = _unit(cost, most)
    spent: Callable[[ComputePoint], float] = lambda point: getattr(point, cost) / unit  # noqa: E731
    by_method = {m: [point for point in points if point.method == m] for m in NAMES}
    return Chart(
        title=f"{dataset} · against {cost if cost != 'flops' else 'FLOPs'}",
        detail="",
        summary="; ".join(
            f"{NAMES[m]} {curve[-1].accuracy:.1f} % after {spent(curve[-1]):.3g} {label}"
            for m, curve in by_method.items()
        ),
        curves=[
            Curve(
                m,
                "solid",
                [(spent(point), point.accuracy) for point in curve],
                tips=[
                    f"{NAMES[m]}, step {p.step}: {p.accuracy:.1f} % after {spent(p):.3g} {label}"
                    for p in curve
                ],
                label=f"{NAMES[m]} {curve[-1].accuracy:.1f}",
            )
            for m, curve in by_method.items()
        ],
        y_range=percent_range([point.accuracy for point in points]),
        y_label="accuracy, % (IoU > 0.5)",
        log_x=True,
        x_label=f"{label} of training",
    )


def _unit(cost: str, most: float) -> tuple[float, str]:
    """(unit, its name) in which the largest of costs is a number below a thousand."""
    if cost == "seconds":
        return 1.0, "seconds"
    prefixes = FLOPS_PREFIXES if cost == "flops" else PREFIXES
    scaled, prefix = _scaled(most, prefixes)
    return most / scaled, f"{prefix}FLOPs" if cost == "flops" else f"{prefix}tokens"


def _scaled(value: float, prefixes: tuple[str, ...]) -> tuple[float, str]:
    """(number, prefix) with the largest prefix that leaves a number of at least one."""
    power = 0
    while value >= 1000 and power < len(prefixes) - 1:
        value, power = value / 1000, power + 1
    return value, prefixes[power]
