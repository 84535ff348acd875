"""Builds the report: evaluation results in, a folder of files out.

The files: report.json, report.html, report.md, figures, the tables that DVC shows, gallery/.
"""

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
from vlm_r1.report.answers import answers_block
from vlm_r1.report.chosen import chosen_lines, selection_lines
from vlm_r1.report.compute import compute_block
from vlm_r1.report.coordinate_flags import coordinate_flags
from vlm_r1.report.costs import cost_per_point
from vlm_r1.report.curve_statistics import curve_statistics
from vlm_r1.report.detection import detection_block
from vlm_r1.report.fairness import check_fairness, checklist
from vlm_r1.report.gains import at_the_end, course, gain_lines, pooled_lines
from vlm_r1.report.published_curves import published_series
from vlm_r1.report.render.dvc_views import write_views
from vlm_r1.report.render.figures import draw_figures
from vlm_r1.report.render.gallery import choose_cases
from vlm_r1.report.render.page import ReportPage, render_html, render_markdown
from vlm_r1.report.render.viewer import write_viewer
from vlm_r1.report.repeats import repeats_block
from vlm_r1.report.results_table import TESTED, EvalResult, ResultsTable
from vlm_r1.report.schema import (
    Choices,
    Command,
    CommonPrompts,
    CoordinateFlag,
    Cost,
    DatasetLine,
    Lineage,
    PromptLine,
    Report,
    TrainingLog,
)
from vlm_r1.report.slice_table import slice_block
from vlm_r1.report.thresholds import threshold_lines
from vlm_r1.report.verdict import Findings, VerdictText, write_verdict

NO_COMMON_PROMPTS = CommonPrompts(lines=[], sentence=None)


@dataclass(frozen=True)
class ReportContext:
    """What the report shows beside the evaluation results; logs of others have none of it.

    Attributes:
        cost: of each method, the mean over its training runs.
        reproduce: (table, whether it is unfair) -> the commands that make its numbers again.
        images: folder of each dataset's images; None where there are none.
        validated: each dataset as validation left it (`lineage.dataset_lines_from_validation`).
        notes: remarks on the result files.
        skipped: (file, reason) of the files that were not read.
    """

    lineage: Lineage
    cost: list[Cost] = field(default_factory=list)
    choices: Choices = field(default_factory=lambda: Choices(lines=[], candidates=[]))
    training: list[TrainingLog] = field(default_factory=list)
    prompts: list[PromptLine] = field(default_factory=list)
    common_prompts: CommonPrompts = NO_COMMON_PROMPTS
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
    confidence: float,
    seed: int,
    gallery: int,
    allow_unfair: bool = False,
) -> Report:
    """Write the whole report as folder `out`, or nothing if anything fails.

    Args:
        results: both methods on the id, ood and validation datasets. Datasets of a role are shown
            in the order given; the verdict is about all ood datasets.
        confidence: of all intervals (0-1).
        seed: chooses the cases of the gallery.
        gallery: number of cases.

    Raises:
        ContractError: contracts differ and `allow_unfair` is False.
        ResultError: a method or the ood dataset is missing, or rows of two results do not pair.
        DataError: an image of the gallery is missing or broken.
    """
    unfair = check_fairness(results, allow_unfair)
    table = ResultsTable(results, confidence)
    _require_both_methods(table)
    last_steps = [at_last_step(table, name) for name in table.datasets(*TESTED)]
    report, verdict_text = _measure(table, context, last_steps, unfair)
    page = ReportPage(
        report=report,
        verdict_text=verdict_text,
        last_steps=last_steps,
        gallery=choose_cases(table, gallery, seed, context.images),
        notes=[*context.notes, *_file_notes(table, report.coordinate_flags)],
        skipped=context.skipped,
        confidence=confidence,
        seed=seed,
    )
    with whole_folder(out) as folder:
        _write(page, folder)
        write_viewer(table, context.images, unfair, folder)
    return report


def _measure(
    table: ResultsTable, context: ReportContext, last_steps: list[LastStep], unfair: list[str]
) -> tuple[Report, VerdictText]:
    """Every number of the report, and its verdict in words."""
    ood = next(last for last in last_steps if last.role == "ood")
    courses = {name: course(table, [name]) for name in table.datasets(*TESTED)}
    each = [courses[name] for name in table.datasets("ood")]
    pooled = each[0] if len(each) == 1 else course(table, table.datasets("ood"))
    comparisons, gains = compare(table), gain_lines(courses.values())
    statistics = curve_statistics(table, comparisons, gains)
    selection = selection_lines(table)
    chosen = chosen_lines(table, selection)
    verdict_text = write_verdict(
        Findings(
            overall=at_the_end(table, [pooled])[0],
            sets=at_the_end(table, each) if len(each) > 1 else [],
            last_steps=last_steps,
            statistics=statistics,
            chosen=chosen,
            unfair=unfair,
            verified=table.results[0].contract.get("verified", True),
        )
    )
    report = Report(
        verdict=verdict_text.verdict,
        contract=table.results[0].contract,
        datasets=dataset_lines(table, context.validated),
        curves=curve_points(table),
        gains=gains,
        comparisons=comparisons,
        pooled=pooled_lines(pooled),
        statistics=statistics,
        selection=selection,
        chosen=chosen,
        decomposition=decomposition_lines(last_steps),
        coordinate_flags=coordinate_flags(table),
        fairness=checklist(table.results),
        choices=context.choices,
        slices=slice_block(table),
        thresholds=threshold_lines(table),
        answers=answers_block(table),
        repeats=repeats_block(table),
        prompts=context.prompts,
        common_prompts=context.common_prompts,
        published=published_series(table.datasets(*TESTED)),
        training=context.training,
        cost=context.cost,
        cost_per_point=cost_per_point(context.cost, ood),
        compute=compute_block(table, {cost.method: cost.checkpoints for cost in context.cost}),
        reproduce=context.reproduce(table, bool(unfair)),
        lineage=context.lineage,
        unfair=unfair,
        detection=detection_block(table),
    )
    return report, verdict_text


def _write(page: ReportPage, folder: Path) -> None:
    (folder / "report.json").write_text(page.report.to_json(), encoding="utf-8")
    (folder / "report.md").write_text(render_markdown(page), encoding="utf-8")
    (folder / "report.html").write_text(render_html(page), encoding="utf-8")
    draw_figures(page.report, folder)
    write_views(page.report, folder)
    (folder / "gallery").mkdir()
    for case in page.gallery:
        if case.png is not None:
            (folder / "gallery" / f"{case.name}.png").write_bytes(case.png)


def _file_notes(table: ResultsTable, flags: list[CoordinateFlag]) -> list[str]:
    """One line per file whose scoring or coordinate space check found something."""
    files = {result.source: result.scores.note for result in table.results if result.scores.note}
    spaces = {flag.file: flag.text for flag in flags}
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
            because="the report compares the two methods out of domain",
            do="evaluate what is missing, or name the out-of-domain dataset",
        )
