"""The report's blocks beside the curves: terms, costs, training, slices, prompts, commands."""

import io
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.report_files import (
    CONTRACT,
    result_file,
    rows,
    tiny_params,
    write_experiment,
)
from tests.test_report_from_logs import NAME, write_log
from vlm_r1 import paths
from vlm_r1.cli import main as cli
from vlm_r1.config import METHODS, standalone
from vlm_r1.errors import ResultError
from vlm_r1.evaluation.prompt_matrix_file import PromptCell, PromptMatrix, read_matrix
from vlm_r1.evaluation.slices import DIMENSIONS
from vlm_r1.rec.contract import Contract
from vlm_r1.rec.prompts import TEMPLATES
from vlm_r1.rec.results import ResultFile, write_results
from vlm_r1.report.analysis import LastStep, MethodGain
from vlm_r1.report.costs import LOSS, NO_GAIN, NO_START, cost_per_point
from vlm_r1.report.fairness import checklist
from vlm_r1.report.from_logs import report_from_logs
from vlm_r1.report.prompt_table import prompt_lines
from vlm_r1.report.published_curves import our_curve, published_series
from vlm_r1.report.render.charts import curve_charts, percent_range, published_charts
from vlm_r1.report.render.drawing import LABEL_GAP, LARGE, marks_of, page_svg, save_figure, spread
from vlm_r1.report.render.embedding import GALLERY_BYTES, embed
from vlm_r1.report.render.labels import (
    DIMENSION_LABELS,
    MODEL_LABELS,
    SECTIONS,
    TEMPLATE_LABELS,
    TERM_LABELS,
)
from vlm_r1.report.render.page import forest
from vlm_r1.report.reproduce import commands_of_project
from vlm_r1.report.results_table import EvalResult, ResultsTable, make_eval_result
from vlm_r1.report.schema import Cost, Lineage, Report
from vlm_r1.report.slice_table import slice_block
from vlm_r1.report.training import MOST_POINTS, read_training_log
from vlm_r1.stages import report as stage
from vlm_r1.stats.intervals import Difference

PARAMS = tiny_params()
QUICK = 0.95
runner = CliRunner()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_experiment(root, PARAMS)
    stage.run(PARAMS, root)
    return root


@pytest.fixture(scope="module")
def report(project) -> Report:
    return Report.model_validate_json((project / paths.REPORT / "report.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def of_logs(tmp_path_factory) -> Path:
    """A report of logs with VLM-R1's names, in and out of domain, at steps 0 and 100."""
    root = tmp_path_factory.mktemp("logs")
    (root / "logs").mkdir()
    for dataset in ("refcoco_val", "refgta_subsample"):
        for name, hits in (("baseline", 5), ("sft_100", 3), ("r1_100", 8)):
            write_log(root / "logs", NAME.format(dataset, name), hits=hits)
    settings = standalone.REPORT.model_copy(update={"gallery": 2})
    report_from_logs(root / "logs", root / "out", settings=settings, seed=1)
    return root


def eval_result(
    method: str,
    hits: int = 3,
    contract: dict | None = None,
    digest: str = "d",
    seed: int | None = None,
) -> EvalResult:
    result = result_file(method, "d", 1, rows(hits))
    meta = {**result.meta, "contract": contract or CONTRACT, "records_digest": digest}
    return make_eval_result(
        ResultFile(accuracy=result.accuracy, results=result.results, meta=meta),
        method=method,
        dataset="d",
        role="ood",
        step=1,
        source=method,
        seed=seed,
    )


# --- fairness


def test_every_term_is_listed_with_its_value():
    terms = {
        t.term: (t.status, t.values) for t in checklist([eval_result("sft"), eval_result("grpo")])
    }
    assert terms["max_pixels"] == ("equal", [1000])
    assert terms["prompts"] == ("equal", [{"sft": "plain", "grpo": "r1"}])
    assert terms["records of d"] == ("equal", ["d"])
    assert set(terms) == {*CONTRACT, "records of d"}


def test_an_unequal_term_shows_both_values():
    other = eval_result("grpo", contract={**CONTRACT, "max_pixels": 500}, digest="e")
    terms = {t.term: (t.status, t.values) for t in checklist([eval_result("sft"), other])}
    assert terms["max_pixels"] == ("unequal", [1000, 500])
    assert terms["records of d"] == ("unequal", ["d", "e"])
    assert terms["coordinate_space"][0] == "equal"


def test_a_term_that_one_side_lacks_is_unequal():
    terms = {t.term: t.status for t in checklist([eval_result("sft"), eval_result("grpo", contract={
        "coordinate_space": "original"})])}  # fmt: skip
    assert terms["max_pixels"] == "unequal"


def test_several_seeds_are_equal_terms_if_both_methods_have_them():
    eval_results = [
        eval_result(m, contract={**CONTRACT, "seed": s}, seed=s) for m in METHODS for s in (1, 2)
    ]
    terms = {t.term: (t.status, t.values) for t in checklist(eval_results)}
    assert terms["seed"] == ("equal", [[1, 2]])
    terms = {t.term: (t.status, t.values) for t in checklist(eval_results[:3])}
    assert terms["seed"] == ("unequal", [[1, 2], 1])


def test_logs_without_terms_leave_every_term_unknown(of_logs):
    found = json.loads((of_logs / "out/report.json").read_text())["fairness"]
    assert {t["status"] for t in found} == {"unknown"}
    assert {t["term"] for t in found} >= set(Contract.model_fields)
    page = (of_logs / "out/report.html").read_text("utf-8")
    assert page.count("? unknown") == len(found)
    assert "nobody can say whether they were equal" in page


def test_marks_are_words_and_not_color_alone(project):
    page = (project / paths.REPORT / "report.html").read_text("utf-8")
    assert page.count("✓ equal") == len(CONTRACT) + 3  # and three datasets' records
    assert "✗ unequal" not in page
    assert "| largest image, pixels | equal | 1000 |" in (
        project / paths.REPORT / "report.md"
    ).read_text("utf-8")


def test_terms_that_have_words_exist():
    assert set(TERM_LABELS) <= set(Contract.model_fields)


# --- cost of a point


def ood_step(low: float, high: float, start: bool = True) -> LastStep:
    gain = Difference((low + high) / 2, low, high, 0.5)
    last = LastStep.__new__(LastStep)
    gains = [MethodGain("grpo", "gta", "ood", 100, 60, 70, gain)] if start else []
    for name, value in (("dataset", "gta"), ("step", 100), ("gains", gains)):
        object.__setattr__(last, name, value)
    return last


COST = Cost(method="grpo", seconds=100, prompts=10, completions=80, tokens=2000, flops=1e10)


def test_a_point_costs_the_whole_training_over_the_gain():
    (line,) = cost_per_point([COST], ood_step(2.0, 6.0))
    assert (line.seconds, line.seconds_ci_low) == pytest.approx((25, 100 / 6))
    assert (line.seconds_ci_high, line.tokens) == pytest.approx((50, 500))
    assert line.reason is None


@pytest.mark.parametrize(
    ("low", "high", "start", "reason"),
    [
        (-1.0, 5.0, True, NO_GAIN),
        (0.0, 5.0, True, NO_GAIN),
        (-5.0, -1.0, True, LOSS),
        (1.0, 2.0, False, NO_START),
    ],
)
def test_without_a_shown_gain_there_is_no_number(low, high, start, reason):
    (line,) = cost_per_point([COST], ood_step(low, high, start))
    assert (line.seconds, line.tokens, line.reason) == (None, None, reason)


def test_the_page_says_why_there_is_no_number(project):
    """On six images neither the rows that SFT lost nor those that GRPO gained are enough."""
    text = (project / paths.REPORT / "report.html").read_text("utf-8")
    assert text.count(f"no number: {NO_GAIN}") == 2


# --- training


def test_training_curves_hold_what_the_log_has(project, report):
    assert [log.method for log in report.training] == ["sft", "grpo"]
    assert report.training[0].quantities == {"loss": [(1, 1.0), (2, 0.5)]}


def test_a_missing_log_is_said(project, tmp_path):
    found = read_training_log(tmp_path / "training_log.jsonl", "sft")
    assert (found.quantities, found.reason) == ({}, "no training_log.jsonl")


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "training_log.jsonl"
    path.write_text('{"step": 1, "loss": 1}\n{"step": 2, "lo')
    with pytest.raises(ResultError, match=r"training_log\.jsonl of sft: line 2"):
        read_training_log(path, "sft")


def test_long_curves_are_thinned_and_keep_both_ends(tmp_path):
    path = tmp_path / "training_log.jsonl"
    lines = [json.dumps({"step": i, "loss": float(i), "kl": float("nan")}) for i in range(1000)]
    path.write_text("\n".join(lines))
    found = read_training_log(path, "sft").quantities
    assert set(found) == {"loss"}
    assert (found["loss"][0][0], found["loss"][-1][0]) == (0, 999)
    assert len(found["loss"]) <= MOST_POINTS + 1


# --- published figures


def test_drawn_worlds_have_no_published_figures(project, report):
    assert report.published == []
    assert "published figures" not in (project / paths.REPORT / "report.html").read_text("utf-8")


def test_published_curves_are_known_by_the_datasets_name():
    found = published_series(["refcoco_val", "refgta_subsample", "lisa_test"])
    ends = {(s.method, *s.datasets, s.withdrawn): s.points[-1] for s in found}
    assert ends == {
        ("grpo", "refgta_subsample", True): (500, 74.6),
        ("sft", "refgta_subsample", True): (500, 36.8),
        ("grpo", "refcoco_val", False): (600, 90.55),
        ("sft", "refcoco_val", False): (600, 88.7),
        ("grpo", "lisa_test", False): (600, 63.14),
        ("sft", "lisa_test", False): (600, 54.82),
    }


def test_a_published_mean_counts_where_all_its_datasets_are_there():
    three = ["refcoco_val", "refcocop_val", "refcocog_val"]
    means = [s for s in published_series(three) if len(s.datasets) == 3]
    assert {s.method: s.points[-1] for s in means} == {"grpo": (500, 87), "sft": (500, 83.93)}
    assert [s for s in published_series(three[:2]) if len(s.datasets) == 3] == []


def test_published_curves_are_drawn_beside_ours_with_the_withdrawal(of_logs):
    report = Report.model_validate_json((of_logs / "out/report.json").read_text())
    charts = {chart.title: chart for chart in published_charts(report)}
    assert set(charts) == {"refcoco_val", "refgta_subsample"}
    tips = [mark.tip for mark in marks_of(charts["refgta_subsample"])]
    assert "SFT as withdrawn, step 500: 36.8 %" in tips
    assert "GRPO here, step 100: 100.0 %" in tips
    text = (of_logs / "out/report.html").read_text("utf-8")
    assert "The claim was withdrawn in March 2025" in text
    assert "arXiv 2504.07615v2, Table 2" in text
    assert (of_logs / "out/published.svg").exists()


def test_our_mean_is_taken_where_every_dataset_has_the_step(report):
    both = our_curve(report.curves, "sft", ["studio_test", "street_test"])
    assert [step for step, _ in both] == [0, 1, 2]
    assert [value for _, value in both] == pytest.approx([400 / 12, 550 / 12, 550 / 12])


# --- slices


def test_slices_are_compared_at_the_last_common_step(report):
    words = [s for s in report.slices.lines if s.dimension == "phrase_words"]
    assert [(s.dataset, s.name, s.n, s.n_images, s.step) for s in words] == [
        ("studio_test", "3 or 4", 12, 6, 2),
        ("street_test", "3 or 4", 12, 6, 2),
    ]
    assert words[1].difference.points == pytest.approx(75)
    assert [(s.n_discordant, s.undecided) for s in words] == [(1, True), (5, True)]
    left_out = {(one.dataset, one.dimension) for one in report.slices.left_out}
    assert ("street_test", "box_area_percent") in left_out


def test_slices_and_commands_of_several_seeds():
    """Of 12 rows SFT hits 2 and 4, GRPO 6 and 8."""
    hits = {"sft": (2, 4), "grpo": (6, 8)}
    results = [eval_result(m, hits[m][s], seed=s) for m in METHODS for s in (0, 1)]
    table = ResultsTable(results, QUICK)
    (line,) = [s for s in slice_block(table).lines if s.dimension == "phrase_words"]
    assert line.n == 12
    assert (line.sft.percent, line.grpo.percent) == pytest.approx((25, 700 / 12))
    assert line.difference.points == pytest.approx(400 / 12)
    what = [c.what for c in commands_of_project(table, False, Lineage())]
    assert "the verdict's difference (of seed 0 alone)" in what


def test_a_slice_on_one_image_has_no_interval():
    def one_long(hits: int) -> list:
        lines = rows(hits)
        return [lines[0].model_copy(update={"question": "a b c d e f g h i j"}), *lines[1:]]

    eval_results = [
        make_eval_result(
            result_file(method, "d", 1, one_long(hits)),
            method=method,
            dataset="d",
            role="ood",
            step=1,
            source=method,
        )
        for method, hits in (("sft", 0), ("grpo", 5))
    ]
    block = slice_block(ResultsTable(eval_results, QUICK))
    (line,) = [s for s in block.lines if s.name == "9 and more"]
    assert (line.n, line.n_images, line.difference) == (1, 1, None)
    assert (line.grpo.percent, line.grpo.ci_low, line.sft.percent) == (100, None, 0)


def test_pages_mark_slices_that_decide_nothing_in_words(of_logs):
    page = (of_logs / "out/report.html").read_text("utf-8")
    assert "(too few differ)" not in page  # all slices hold all eight rows: nothing to compare
    assert "the log does not name its images" in page


# --- prompts


def write_matrix(root: Path) -> None:
    cells = []
    for model, hits in (("base", 4), ("sft", 6), ("grpo", 9)):
        for template in ("plain", "r1", "json"):
            name = f"street_test/{model}-{template}.json"
            lines = rows(hits - (template == "json"))
            result = result_file(model, "street_test", 1, lines)
            write_results(root / paths.PROMPTS / name, result)
            cells.append(PromptCell(model=model, step=int(model != "base"), template=template,
                                    dataset="street_test", file=name))  # fmt: skip
    PromptMatrix(cells=cells).write(root / paths.PROMPTS)


def test_the_matrix_shows_every_model_under_every_prompt(tmp_path):
    write_experiment(tmp_path, PARAMS)
    write_matrix(tmp_path)
    folder = stage.run(PARAMS, tmp_path)
    report = Report.model_validate_json((folder / "report.json").read_text("utf-8"))
    found = {(p.model, p.template): (p.accuracy, p.own) for p in report.prompts}
    assert len(found) == 9
    assert found["sft", "plain"] == (pytest.approx(50), True)
    assert found["sft", "json"] == (pytest.approx(500 / 12), False)
    assert [key for key, (_, own) in found.items() if own] == [("sft", "plain"), ("grpo", "r1")]
    assert all(p.ci_low < p.accuracy < p.ci_high for p in report.prompts)
    html = (folder / "report.html").read_text("utf-8")
    assert html.count("own prompt</span>") == 2
    row = html[html.index("SFT, step 1</th>") :]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row[: row.index("</tr>")], flags=re.DOTALL)
    assert cells[0].startswith("50.0 %")
    assert len(cells) == 4
    assert cells[-1] == "8.3"


def test_turned_off_the_page_says_how_to_turn_it_on(project, report):
    assert report.prompts == []
    assert "report.prompt_matrix" in (project / paths.REPORT / "report.html").read_text("utf-8")


def test_a_report_of_logs_has_no_section_of_prompts(of_logs):
    assert "How much the prompt does" not in (of_logs / "out/report.html").read_text("utf-8")


def test_a_broken_matrix_is_named(tmp_path):
    with pytest.raises(ResultError, match=r"matrix\.json: no such file"):
        read_matrix(tmp_path)
    (tmp_path / "matrix.json").write_text('{"cells": [{"model": "other"}]}')
    with pytest.raises(ResultError, match=r"cells\.0\.model"):
        read_matrix(tmp_path)


def test_a_missing_cell_is_named(tmp_path):
    write_matrix(tmp_path)
    shutil.rmtree(tmp_path / paths.PROMPTS / "street_test")
    with pytest.raises(ResultError, match=r"base-plain\.json: no such file"):
        prompt_lines(tmp_path, PARAMS, QUICK)


# --- commands


def run_command(command: str) -> dict:
    program, *arguments = shlex.split(command)
    assert program == "vlm-r1"
    done = runner.invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def test_commands_make_the_verdicts_numbers_again(project, report, monkeypatch):
    monkeypatch.chdir(project)
    commands = {c.what: c.command for c in report.reproduce}
    last = {c.method: c for c in report.curves if (c.dataset, c.step) == ("street_test", 2)}
    assert run_command(commands["GRPO's accuracy"])["accuracy"] == last["grpo"].accuracy
    assert run_command(commands["SFT's accuracy"])["accuracy"] == last["sft"].accuracy
    found = run_command(commands["the verdict's difference"])
    assert found["difference"] == pytest.approx(report.verdict.difference)
    assert found["n"] == 12


def test_every_point_names_a_file_that_scores_to_it(project, report, monkeypatch):
    monkeypatch.chdir(project)
    for point in report.curves:
        (file,) = point.files
        found = run_command(f"vlm-r1 score {file} --json")
        assert found["accuracy"] == point.accuracy


def test_commands_name_the_commit_and_stages_that_exist(report):
    commands = [c.command for c in report.reproduce]
    assert commands[:2] == ["git checkout COMMIT", "dvc repro"]  # the project is no clone
    assert commands[-1] == "vlm-r1 stage report"
    assert runner.invoke(cli.app, ["stage", "report", "--help"]).exit_code == 0


def test_commands_of_logs_make_the_report_again(of_logs, monkeypatch):
    monkeypatch.chdir(of_logs)
    first = json.loads((of_logs / "out/report.json").read_text())
    *numbers, again = [c["command"] for c in first["reproduce"]]
    assert run_command(numbers[-1])["difference"] == pytest.approx(first["verdict"]["difference"])
    arguments = shlex.split(again)[1:]
    assert runner.invoke(cli.app, arguments).exit_code == 0
    second = json.loads((of_logs / "report-again/report.json").read_text())
    assert second["verdict"]["difference"] == first["verdict"]["difference"]


# --- charts


def test_points_stand_where_their_values_say(report):
    chart = curve_charts(report)[1]
    low, high = chart.y_range
    assert LARGE.place(chart, 0, low) == (LARGE.left, LARGE.bottom)
    assert LARGE.place(chart, 2, high) == (LARGE.right, LARGE.top)
    marks = [mark for mark in marks_of(chart) if mark.method == "grpo"]
    assert [mark.x for mark in marks] == [LARGE.place(chart, step, low)[0] for step in (0, 1, 2)]
    assert marks[2].tip.startswith("GRPO, step 2: 83.3 % (")


def test_what_is_pointed_at_lies_on_what_is_drawn(report):
    """The page lays its marks over matplotlib's drawing, in which step 0 is hollow."""
    chart = curve_charts(report)[1]
    markers = re.findall(
        r'<use href="[^"]+" x="([^"]+)" y="([^"]+)" style="([^"]+stroke-width[^"]+)"',
        page_svg(chart, unfair=False),
    )
    marks = marks_of(chart)
    assert [mark.method for mark in marks] == ["sft"] * 3 + ["grpo"] * 3
    for mark, (x, y, style) in zip(marks, markers, strict=True):
        assert (float(x), float(y)) == pytest.approx((mark.x, mark.y), abs=0.01)
        assert f"stroke: var(--{mark.method})" in style
        assert ("fill: var(--card)" in style) == ("step 0:" in mark.tip)


def test_charts_of_one_page_share_no_ids_and_follow_its_colors(report):
    charts = [page_svg(chart, unfair=False) for chart in curve_charts(report)]
    ids = [name for svg in charts for name in re.findall(r' id="([^"]+)"', svg)]
    assert ids
    assert len(set(ids)) == len(ids)
    assert not re.search(r": #|<style|clip-path|font-family", "".join(charts))


def test_names_in_a_chart_are_drawn_as_they_stand(report, tmp_path):
    chart = replace(curve_charts(report)[0], title="a_$x^2$ & <b>")
    save_figure([[chart]], [tmp_path / "a.svg"], ["$y$: 1 != 2"], caption="")
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert ">a_$x^2$ &amp; &lt;b&gt; (n = 12)</text>" in text
    assert "UNFAIR COMPARISON: $y$ differ" in text


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [((40, 60), 38.8, 61.2), ((50, 50), 43.28, 56.72), ((0, 100), -2.0, 102.0)],
)
def test_an_axis_of_percent_spans_at_least_twelve_points(values, low, high):
    assert percent_range(values) == pytest.approx((low, high))


def test_labels_are_moved_apart_only_where_they_touch():
    assert spread([100, 104, 200], LABEL_GAP) == [93.5, 110.5, 200]
    assert spread([104, 200, 100], LABEL_GAP) == [110.5, 200, 93.5]
    assert spread([], LABEL_GAP) == []


def test_an_interval_beyond_the_drawing_is_cut_off_at_its_end():
    assert 'x1="6.0" x2="134.0"' in forest(0, -90, 90, farthest=10)


def test_a_large_image_is_made_smaller_and_a_small_one_is_kept():
    assert embed(b"png", images=1) == "data:image/png;base64,cG5n"
    noise = np.random.default_rng(0).integers(0, 255, (600, 900, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format="PNG")
    small = embed(buffer.getvalue(), images=12)
    assert small.startswith("data:image/webp;base64,")
    assert len(small) < 4 / 3 * GALLERY_BYTES / 12 + 100


# --- words


def test_everything_that_is_shown_has_words():
    assert set(DIMENSION_LABELS) == set(DIMENSIONS)
    assert set(TEMPLATE_LABELS) == set(TEMPLATES)
    assert set(MODEL_LABELS) == {"base", "sft", "grpo"}
    assert next(iter(SECTIONS)) == "verdict"
