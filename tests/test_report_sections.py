"""Sections of the page with little to say are folded, and say why."""

import pytest

from tests.report_files import tiny_params, write_experiment
from vlm_r1 import paths
from vlm_r1.report.render.sections import sections_of
from vlm_r1.report.schema import Estimate, Report
from vlm_r1.stages import report as stage

PARAMS = tiny_params()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    write_experiment(root, PARAMS)
    stage.run(PARAMS, root)
    return root


@pytest.fixture(scope="module")
def report(root) -> Report:
    return Report.model_validate_json((root / paths.REPORT / "report.json").read_text("utf-8"))


def folded(report: Report) -> dict[str, str | None]:
    return {one.name: one.folded for one in sections_of(report, notes=False, cases=True)}


def test_what_has_nothing_to_show_is_left_out(report):
    assert "notes" not in folded(report)
    assert "repeats" not in folded(report)
    assert "published" not in folded(report)


def test_the_verdict_the_curves_and_the_differences_are_always_open(report):
    found = folded(report)
    assert [found[name] for name in ("verdict", "curves", "comparisons", "statistics")] == [
        None
    ] * 4


def test_a_section_without_anything_significant_is_folded_with_the_reason(report, root):
    assert folded(report)["decomposition"] == (
        "correcting box coordinates recovers nothing significant"
    )
    html = (root / paths.REPORT / "report.html").read_text("utf-8")
    assert '<details class="folded"><summary>Coordinates <span>correcting box' in html


def test_it_is_open_where_something_is_significant(report):
    line = report.decomposition[0].model_copy(update={"recovered_ci_low": 1.0})
    assert folded(report.model_copy(update={"decomposition": [line]}))["decomposition"] is None


@pytest.mark.parametrize(("p_value", "is_open"), [(0.001, True), (0.04, False)])
def test_slices_open_where_one_differs_after_holm_over_all(report, p_value, is_open):
    """Two slices: p = .04 becomes .08."""
    found = Estimate(points=5, ci_low=1, ci_high=9, p_value=p_value)
    nothing = Estimate(points=0, ci_low=-1, ci_high=1, p_value=1.0)
    line = report.slices.lines[0]
    lines = [line.model_copy(update={"difference": one}) for one in (found, nothing)]
    slices = report.slices.model_copy(update={"lines": lines})
    assert (folded(report.model_copy(update={"slices": slices}))["slices"] is None) is is_open
