"""Which sections report.html has, and which of them are folded because they have little to say."""

from typing import NamedTuple

from vlm_r1.report.render.labels import SECTIONS
from vlm_r1.report.schema import Estimate, Report
from vlm_r1.stats.intervals import holm


class PageSection(NamedTuple):
    """A section of the page; `folded` says why it is closed at first, None if it is open."""

    name: str
    title: str
    folded: str | None


def sections_of(report: Report, notes: bool, cases: bool) -> list[PageSection]:
    """The sections that have something to show, in their order.

    Args:
        notes: whether there are remarks on the files.
        cases: whether the gallery has any.
    """
    empty = {
        "notes": not notes,
        "published": not report.published,
        # Logs of others have no model to ask again, so the section could offer nothing.
        "prompts": not (report.prompts or report.contract.get("verified", True)),
        "choices": not report.choices.lines,
        "compute": not report.compute.points,
        "cases": not cases,
        "repeats": report.repeats is None,
        "detection": report.detection is None,
    }
    folded = _folded(report)
    return [
        PageSection(name, title, folded.get(name))
        for name, title in SECTIONS.items()
        if not empty.get(name)
    ]


def _folded(report: Report) -> dict[str, str]:
    """Section -> why it is folded."""
    reasons = {}
    if not any(
        low > 0 or high < 0
        for line in report.decomposition
        for low, high in (
            (line.recovered_ci_low, line.recovered_ci_high),
            (line.coordinates_ci_low, line.coordinates_ci_high),
        )
    ):
        reasons["decomposition"] = "correcting box coordinates recovers nothing significant"
    slices = [line.difference for line in report.slices.lines if line.difference is not None]
    if not _any_significant(slices, 1 - report.statistics.confidence):
        reasons["slices"] = "on no slice do the methods differ after Holm over all slices"
    if not report.answers.warnings:
        reasons["answers"] = "cut-offs do not differ between the methods"
    if not report.prompts:
        reasons["prompts"] = "not asked"
    if not report.cost:
        reasons["cost"] = "unknown"
    return reasons


def _any_significant(differences: list[Estimate], alpha: float) -> bool:
    return any(p < alpha for p in holm([found.p_value for found in differences]))
