"""Units in, a folder of report files out: json, md, html, figures, DVC views, gallery/."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vlm_r1.config import METHODS
from vlm_r1.errors import ResultError
from vlm_r1.files import whole_folder
from vlm_r1.report.analysis import (
    LastStep,
    at_last_step,
    compare,
    curve_points,
    dataset_lines,
    decomposition_lines,
)
from vlm_r1.report.costs import cost_per_point
from vlm_r1.report.curve_statistics import curve_statistics, selection_lines
from vlm_r1.report.fairness import checklist
from vlm_r1.report.published_curves import published_series
from vlm_r1.report.render.dvc_views import write_views
from vlm_r1.report.render.gallery import choose_cases
from vlm_r1.report.render.page import Page, render_html, render_markdown
from vlm_r1.report.render.png_figures import draw_figures
from vlm_r1.report.results_table import TESTED, EvalResult, ResultsTable, check_fairness
from vlm_r1.report.schema import (
    Command,
    Cost,
    DatasetLine,
    Lineage,
    PromptLine,
    Report,
    Statistics,
    TrainingLog,
)
from vlm_r1.report.slice_table import slice_block
from vlm_r1.report.verdict import VerdictText, write_verdict
from vlm_r1.stats.intervals import Resampling


@dataclass(frozen=True)
class ReportContext:
    """What the report shows beside the units' own numbers; logs of others have none of it.

    Attributes:
        reproduce: table and whether it is unfair -> the commands that make its numbers again.
        images: folder of each dataset's images; None where there are none.
        validated: what validation said of datasets (`report.validated`).
        notes, skipped: what a reader must know about the files; (file, reason) of those not read.
    """

    lineage: Lineage
    cost: list[Cost] = field(default_factory=list)
    training: list[TrainingLog] = field(default_factory=list)
    prompts: list[PromptLine] = field(default_factory=list)
    reproduce: Callable[[ResultsTable, bool], list[Command]] = lambda table, unfair: []
    images: dict[str, Path] | None = None
    validated: dict[str, DatasetLine] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def build_report(
    results: list[EvalResult],
    context: ReportContext,
    *,
    out: Path,
    resampling: Resampling,
    gallery: int,
    allow_unfair: bool = False,
) -> Report:
    """Write the whole report as folder `out`, or nothing if anything fails.

    Args:
        units: both methods on the id, ood and validation datasets, each role in the order in
            which its datasets are to be shown; the verdict is about the first ood dataset.
        gallery: number of cases.

    Raises:
        ContractError: contracts differ and `allow_unfair` is not given.
        ResultError: a method or the ood dataset is missing, or rows of units do not pair.
        DataError: an image of the gallery is missing or broken.
    """
    unfair = check_fairness(results, allow_unfair)
    table = ResultsTable(results, resampling)
    _require_both_methods(table)
    last_steps = [at_last_step(table, name) for name in table.datasets(*TESTED)]
    report, verdict_text = _measure(table, context, last_steps, unfair)
    page = Page(
        report=report,
        verdict_text=verdict_text,
        last_steps=last_steps,
        gallery=choose_cases(table, gallery, resampling.seed, context.images),
        notes=[*context.notes, *_file_notes(table)],
        skipped=context.skipped,
        resampling=resampling,
    )
    with whole_folder(out) as folder:
        _write(page, folder)
    return report


def _measure(
    table: ResultsTable,
    context: ReportContext,
    last_steps: list[LastStep],
    unfair: list[str],
) -> tuple[Report, VerdictText]:
    """Every number of the report, and its verdict in words."""
    comparisons = compare(table)
    statistics = curve_statistics(table, comparisons)
    verdict_text = _judge(table, last_steps, statistics, unfair)
    report = Report(
        verdict=verdict_text.verdict,
        contract=table.results[0].contract,
        datasets=dataset_lines(table, context.validated),
        curves=curve_points(table),
        comparisons=comparisons,
        statistics=statistics,
        selection=selection_lines(table),
        decomposition=decomposition_lines(last_steps),
        fairness=checklist(table.results),
        slices=slice_block(table),
        prompts=context.prompts,
        published=published_series(table.datasets(*TESTED)),
        training=context.training,
        cost=context.cost,
        cost_per_point=cost_per_point(context.cost, _first(last_steps, "ood")),
        reproduce=context.reproduce(table, bool(unfair)),
        lineage=context.lineage,
        unfair=unfair,
    )
    return report, verdict_text


def _judge(
    table: ResultsTable,
    last_steps: list[LastStep],
    statistics: Statistics,
    unfair: list[str],
) -> VerdictText:
    ood = _first(last_steps, "ood")
    return write_verdict(
        ood=ood,
        in_domain=_first(last_steps, "id"),
        confidence=table.resampling.confidence,
        unfair=unfair,
        verified=table.results[0].contract.get("verified", True),
        tests=next(one.steps for one in statistics.datasets if one.dataset == ood.dataset),
        seeds=statistics.seeds,
    )


def _first(last_steps: list[LastStep], role: str) -> LastStep | None:
    return next((last for last in last_steps if last.role == role), None)


def _write(page: Page, folder: Path) -> None:
    figures = draw_figures(page.report, folder)
    write_views(page.report, folder)
    (folder / "report.json").write_text(page.report.to_json(), encoding="utf-8")
    (folder / "report.md").write_text(render_markdown(page, figures), encoding="utf-8")
    (folder / "report.html").write_text(render_html(page), encoding="utf-8")
    (folder / "gallery").mkdir()
    for case in page.gallery:
        if case.png is not None:
            (folder / "gallery" / f"{case.name}.png").write_bytes(case.png)


def _file_notes(table: ResultsTable) -> list[str]:
    """One line a file that scoring or the coordinate space check has something to say about."""
    files = {result.source: result.scores.note for result in table.results if result.scores.note}
    found = {
        result.source: result.coordinate_space_check(tests=len(table.results))
        for result in table.results
    }
    spaces = {source: f.sentence for source, f in found.items() if f.best != f.assumed}
    return [f"{source}: {note}" for source, note in (*files.items(), *spaces.items())]


def _require_both_methods(table: ResultsTable) -> None:
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
