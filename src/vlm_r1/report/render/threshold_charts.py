"""Charts of GRPO minus SFT against the IoU threshold, one per test dataset."""

from vlm_r1.report.render.charts import Chart, Curve, points_range
from vlm_r1.report.schema import Estimate, Report, ThresholdLine
from vlm_r1.report.wording import PLACES, points


def threshold_charts(report: Report) -> list[Chart]:
    """Dashed: difference of accuracies. Solid with a band: of gains, or of accuracies alone."""
    tested = [dataset for dataset in report.datasets if dataset.role in PLACES]
    return [_chart(report, dataset.name, PLACES[dataset.role]) for dataset in tested]


def lines_of(report: Report, dataset: str) -> list[ThresholdLine]:
    """The dataset's lines with a threshold, that is, without the mean IoU."""
    found = [line for line in report.thresholds if line.dataset == dataset]
    return [line for line in found if line.threshold is not None]


def _chart(report: Report, dataset: str, place: str) -> Chart:
    lines = lines_of(report, dataset)
    raw = [(line.threshold or 0.0, line.difference) for line in lines]
    gains = [(line.threshold or 0.0, line.gain) for line in lines if line.gain is not None]
    main, name = (gains, "gains") if gains else (raw, "as they stand")
    ends = [e for _, found in main for e in (found.ci_low, found.ci_high)]
    curves = [_curve(main, name)]
    if gains:
        curves.insert(0, _plain_curve(raw))
        ends += [found.points for _, found in raw]
    return Chart(
        title=f"{place.capitalize()} · {dataset}",
        detail=f"GRPO minus SFT, step {lines[0].step}",
        summary="; ".join(
            f"{name} {points(found.points)} points above IoU {threshold:g}"
            for threshold, found in (main[0], main[-1])
        ),
        curves=curves,
        y_range=points_range(ends),
        y_label="points, GRPO ahead above 0",
        x_label="IoU threshold",
        zero_line=True,
    )


def _plain_curve(raw: list[tuple[float, Estimate]]) -> Curve:
    values = [(threshold, found.points) for threshold, found in raw]
    return Curve("difference", "dashed", values, label="as they stand")


def _curve(found: list[tuple[float, Estimate]], name: str) -> Curve:
    return Curve(
        "difference",
        "solid",
        [(threshold, one.points) for threshold, one in found],
        band=[(one.ci_low, one.ci_high) for _, one in found],
        tips=[
            f"IoU > {threshold:g}, {name}: {points(one.points)} "
            f"({points(one.ci_low)} to {points(one.ci_high)})"
            for threshold, one in found
        ],
        label=name,
    )
