"""Units in, a folder of report files out: json, md, html, curves, DVC views, gallery/."""

from pathlib import Path

from vlm_r1.config import METHODS
from vlm_r1.errors import ResultError
from vlm_r1.evaluation.statistics import Resampling
from vlm_r1.folders import whole_folder
from vlm_r1.report.analysis import (
    at_last_step,
    compare,
    curve_points,
    dataset_lines,
    frame_splits,
)
from vlm_r1.report.effects import curve_statistics, selection_lines
from vlm_r1.report.figure import draw_curves
from vlm_r1.report.gallery import choose_cases
from vlm_r1.report.page import Page, render_html, render_markdown
from vlm_r1.report.schema import Cost, Lineage, Report
from vlm_r1.report.units import TESTED, Table, Unit, check_fairness
from vlm_r1.report.verdict import judge
from vlm_r1.report.views import write_views


def build_report(
    units: list[Unit],
    *,
    out: Path,
    lineage: Lineage,
    resampling: Resampling,
    gallery: int,
    cost: list[Cost] | None = None,
    images: dict[str, Path] | None = None,
    allow_unfair: bool = False,
    notes: list[str] | None = None,
    skipped: list[tuple[str, str]] | None = None,
) -> Report:
    """Write the whole report as folder `out`, or nothing if anything fails.

    Args:
        units: both methods on the id, ood and validation datasets, each role in the order in
            which its datasets are to be shown; the verdict is about the first ood dataset.
        gallery: number of cases.
        images: folder of each dataset's pictures; None where there are none.
        notes, skipped: what a reader must know about the files; (file, reason) of those not read.

    Raises:
        ContractError: contracts differ and `allow_unfair` is not given.
        ResultError: a method or the ood dataset is missing, or rows of units do not pair.
        DataError: a picture of the gallery is missing or broken.
    """
    unfair = check_fairness(units, allow_unfair)
    table = Table(units)
    _require_both_methods(table)
    last_steps = [at_last_step(table, name, resampling) for name in table.datasets(*TESTED)]
    comparisons = compare(table, resampling)
    statistics = curve_statistics(table, comparisons, resampling)
    contract = units[0].contract
    ood = next(last for last in last_steps if last.role == "ood")
    judgement = judge(
        ood=ood,
        in_domain=next((last for last in last_steps if last.role == "id"), None),
        confidence=resampling.confidence,
        unfair=unfair,
        verified=contract.get("verified", True),
        tests=next(one.steps for one in statistics.datasets if one.dataset == ood.dataset),
        seeds=statistics.seeds,
    )
    report = Report(
        verdict=judgement.verdict,
        contract=contract,
        datasets=dataset_lines(table),
        curves=curve_points(table, resampling),
        comparisons=comparisons,
        statistics=statistics,
        selection=selection_lines(table),
        frames=frame_splits(last_steps),
        cost=cost or [],
        lineage=lineage,
        unfair=unfair,
    )
    page = Page(
        report=report,
        judgement=judgement,
        last_steps=last_steps,
        gallery=choose_cases(table, gallery, resampling.seed, images),
        notes=[*(notes or []), *_file_notes(table)],
        skipped=skipped or [],
        resampling=resampling,
    )
    with whole_folder(out) as folder:
        _write(page, folder)
    return report


def _write(page: Page, folder: Path) -> None:
    figure = folder / "curves.png"
    draw_curves(page.report, figure)
    write_views(page.report, folder)
    (folder / "report.json").write_text(page.report.to_json(), encoding="utf-8")
    (folder / "report.md").write_text(render_markdown(page), encoding="utf-8")
    (folder / "report.html").write_text(render_html(page, figure), encoding="utf-8")
    (folder / "gallery").mkdir()
    for case in page.gallery:
        if case.png is not None:
            (folder / "gallery" / f"{case.name}.png").write_bytes(case.png)


def _file_notes(table: Table) -> list[str]:
    """One line a file that scoring or the frame check has something to say about."""
    files = {unit.source: unit.scores.note for unit in table.units if unit.scores.note}
    found = {unit.source: unit.frame_finding(tests=len(table.units)) for unit in table.units}
    frames = {source: f.sentence for source, f in found.items() if f.best != f.assumed}
    return [f"{source}: {note}" for source, note in (*files.items(), *frames.items())]


def _require_both_methods(table: Table) -> None:
    tested = table.datasets(*TESTED)
    lacking = [f"{m} on {name}" for name in tested for m in METHODS if not table.steps(m, name)]
    if not table.datasets("ood"):
        lacking.append("any out-of-domain dataset")
    if lacking:
        raise ResultError(
            got=f"no results of {', '.join(lacking)}",
            need="both methods on every dataset, at least one of them out of domain",
            because="the question is how the two methods compare out of domain",
            do="evaluate what is missing, or name the out-of-domain dataset",
        )
