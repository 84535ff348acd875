"""The report's blocks `statistics` and `selection`: numbers by hand, and what the pages say."""

import json
from pathlib import Path

import pytest

from tests.report_files import result_file, rows, tiny_params, write_experiment
from tests.test_report_from_logs import NAME, write_log
from vlm_r1.config import standalone
from vlm_r1.errors import ResultError
from vlm_r1.report.analysis import compare
from vlm_r1.report.chosen import chosen_lines, selection_lines
from vlm_r1.report.curve_statistics import curve_statistics
from vlm_r1.report.from_logs import report_from_logs
from vlm_r1.report.gains import at_the_end, course, gain_lines, pooled_lines
from vlm_r1.report.results_table import TESTED, ResultsTable, make_eval_result
from vlm_r1.report.schema import Statistics
from vlm_r1.stages import report as stage

PARAMS = tiny_params()
QUICK = 0.95


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_experiment(root, PARAMS)
    return stage.run(PARAMS, root)


@pytest.fixture(scope="module")
def report(folder) -> dict:
    return json.loads((folder / "report.json").read_text("utf-8"))


def table_of(hits: dict[tuple[str, str], list[int]], confidence: float = 0.95) -> ResultsTable:
    """Results of twelve rows at steps 0, 1, ...; hits per method and dataset, `<role>` or
    `<role>-<name>`."""
    results = (
        make_eval_result(
            result_file(method, dataset, step, rows(count)),
            method=method,
            dataset=dataset,
            role=dataset.partition("-")[0],
            step=step,
            source=f"{method}-{dataset}-{step}",
        )
        for (method, dataset), counts in hits.items()
        for step, count in enumerate(counts)
    )
    return ResultsTable(results, confidence)


def statistics_of(hits: dict[tuple[str, str], list[int]]) -> Statistics:
    table = table_of(hits)
    return curve_statistics(
        table, compare(table), gain_lines(course(table, [name]) for name in table.datasets(*TESTED))
    )


def test_area_is_the_mean_difference_over_steps(report):
    """Differences 0, -2, -1 and 0, 5, 9 twelfths at steps 0, 1 and 2."""
    areas = {one["dataset"]: one["area"]["points"] for one in report["statistics"]["datasets"]}
    assert areas == {
        "studio_test": pytest.approx(100 * -2.5 / 24),
        "street_test": pytest.approx(100 * 9.5 / 24),
    }


def test_p_is_adjusted_over_the_trained_steps(report):
    plain = {(c["dataset"], c["step"]): c["p_value"] for c in report["comparisons"]}
    for one in report["statistics"]["datasets"]:
        assert [test["step"] for test in one["steps"]] == [1, 2]  # at step 0 nothing is trained
        found = [test["p_value"] for test in one["steps"]]
        assert found == [plain[one["dataset"], step] for step in (1, 2)]
        low, high = sorted(test["p_holm"] for test in one["steps"])
        assert low == pytest.approx(min(1, 2 * min(found)))
        assert high == pytest.approx(min(1, max(low, max(found))))


def test_forgetting_and_gap_of_each_method(report):
    """In domain +6 and +5, out of domain -3 and +6 twelfths."""
    found = {one["method"]: one for one in report["statistics"]["methods"]}
    assert {m: one["forgetting"]["points"] for m, one in found.items()} == {
        "sft": pytest.approx(25),
        "grpo": pytest.approx(-50),
    }
    assert {m: one["generalization_gap"]["points"] for m, one in found.items()} == {
        "sft": pytest.approx(75),
        "grpo": pytest.approx(-100 / 12),
    }
    assert {one["step"] for one in found.values()} == {2}


def test_what_choosing_on_the_test_would_have_claimed(report):
    """Validation takes step 2 of both; SFT was better out of domain at step 1."""
    assert len(report["selection"]) == 4
    assert {line["chosen_step"] for line in report["selection"]} == {2}
    over = {(s["method"], s["dataset"]): s["overclaim"] for s in report["selection"]}
    assert over.pop(("sft", "street_test")) == pytest.approx(100 * 2 / 12)
    assert set(over.values()) == {0}


def test_gains_are_what_each_method_added_since_step_0(report):
    """Both start at 4 of 12, so gains differ as the checkpoints do."""
    gains = {(g["dataset"], g["step"]): g["difference"] for g in report["gains"]}
    assert gains == {
        ("studio_test", 1): pytest.approx(100 * -2 / 12),
        ("studio_test", 2): pytest.approx(100 * -1 / 12),
        ("street_test", 1): pytest.approx(100 * 5 / 12),
        ("street_test", 2): pytest.approx(100 * 9 / 12),
    }
    for name in ("studio_test", "street_test"):
        first, second = (g for g in report["gains"] if g["dataset"] == name)
        low, _ = sorted((first, second), key=lambda gain: gain["p_value"])
        assert low["p_holm"] == pytest.approx(min(1, 2 * low["p_value"]))


def test_a_lead_that_stood_at_step_0_is_no_gain():
    """GRPO 8, 9, 9 and SFT 4, 5, 5 of 12: +33 points as they stand, nothing gained."""
    hits = {("grpo", "ood"): [8, 9, 9], ("sft", "ood"): [4, 5, 5]}
    (one,) = statistics_of(hits).datasets
    assert one.area.points == pytest.approx(100 * 4 / 12)
    assert one.gain.area.points == pytest.approx(0)
    assert one.gain.first_step_above_zero is None
    table = table_of(hits)
    (found,) = at_the_end(table, [course(table, ["ood"])])
    assert (found.difference.mean, found.gain.mean) == pytest.approx((100 * 4 / 12, 0))
    assert found.outcome == "open"


def test_the_gap_of_grpo_minus_that_of_sft():
    """In domain +2 and +4, out of domain +1 and -1 twelfths: gaps 1 and 5."""
    found = statistics_of(
        {
            ("grpo", "id"): [4, 6],
            ("sft", "id"): [4, 8],
            ("grpo", "ood"): [4, 5],
            ("sft", "ood"): [4, 3],
        }
    )
    (line,) = found.gap_differences
    assert line.difference.points == pytest.approx(100 * (1 - 5) / 12)
    assert (line.id_datasets, line.ood_datasets, line.step) == (["id"], ["ood"], 1)


def test_of_several_ood_sets_each_has_a_verdict_and_the_mean_the_headline():
    """Differences of gains +6 and +2 twelfths."""
    hits = {
        ("grpo", "ood-a"): [4, 8],
        ("sft", "ood-a"): [4, 2],
        ("grpo", "ood-b"): [6, 8],
        ("sft", "ood-b"): [4, 4],
    }
    table = table_of(hits)
    pooled = course(table, ["ood-a", "ood-b"])
    (line,) = pooled_lines(pooled)
    assert (line.datasets, line.step) == (["ood-a", "ood-b"], 1)
    assert line.gain.points == pytest.approx(100 * 4 / 12)
    assert line.difference.points == pytest.approx(100 * 5 / 12)
    (found,) = at_the_end(table, [pooled])
    assert (found.gain.mean, found.n, found.tests) == (pytest.approx(100 * 4 / 12), 24, 1)
    a, b = at_the_end(table, [course(table, [name]) for name in ("ood-a", "ood-b")])
    assert (a.gain.mean, b.gain.mean) == (pytest.approx(50), pytest.approx(100 * 2 / 12))
    assert {a.tests, b.tests} == {2}  # one step of two sets
    low, _ = sorted((a, b), key=lambda one: one.gain.p_value)
    assert low.gain_p_holm == pytest.approx(min(1, 2 * low.gain.p_value))
    statistics = statistics_of(hits)
    assert [one.ood_dataset for one in statistics.methods] == ["ood-a", "ood-a", "ood-b", "ood-b"]
    assert pooled_lines(course(table, ["ood-a"])) == []


def test_the_chosen_checkpoints_are_compared_each_at_its_own_step():
    """Validation takes GRPO at step 1 (8 of 12 out of domain) and SFT at step 2 (5)."""
    table = table_of(
        {
            ("grpo", "ood"): [4, 8, 9],
            ("sft", "ood"): [3, 7, 5],
            ("grpo", "validation"): [1, 6, 5],
            ("sft", "validation"): [1, 5, 6],
        }
    )
    (line,) = chosen_lines(table, selection_lines(table))
    assert (line.grpo_steps, line.sft_steps) == ([1], [2])
    assert (line.grpo_accuracy, line.sft_accuracy) == pytest.approx((800 / 12, 500 / 12))
    assert line.difference.points == pytest.approx(100 * 3 / 12)
    assert line.gain.points == pytest.approx(100 * (4 - 2) / 12)


def test_a_lead_lasts_only_if_it_is_significant_to_the_end():
    ahead, behind = [4, 12], [4, 0]  # six images in one direction: p = 2 / 2**6 = .031
    up = statistics_of({("grpo", "ood"): ahead, ("sft", "ood"): behind}).datasets[0]
    assert (up.first_step_above_zero, up.first_step_below_zero) == (1, None)
    down = statistics_of({("grpo", "ood"): behind, ("sft", "ood"): ahead}).datasets[0]
    assert (down.first_step_above_zero, down.first_step_below_zero) == (None, 1)
    lost = statistics_of({("grpo", "ood"): [4, 12, 4], ("sft", "ood"): [4, 0, 4]})
    assert lost.datasets[0].first_step_above_zero is None


def test_equal_curves_and_a_single_step_leave_blanks():
    same = statistics_of({("grpo", "ood"): [4], ("sft", "ood"): [4]})
    (one,) = same.datasets
    assert (one.minimum_detectable_effect, one.area) == (None, None)
    assert [test.p_holm for test in one.steps] == [1.0]
    assert same.methods == []


def test_without_an_id_dataset_there_is_no_gap():
    found = statistics_of({("grpo", "ood"): [4, 5], ("sft", "ood"): [4, 2]})
    assert [one.generalization_gap for one in found.methods] == [None, None]
    assert [one.forgetting.points for one in found.methods] == pytest.approx([200 / 12, -100 / 12])


def test_validation_must_have_every_checkpoint_of_the_test_set():
    table = table_of(
        {(m, r): [4, 5, 6] for m in ("sft", "grpo") for r in ("ood",)}
        | {(m, "validation"): [4, 5] for m in ("sft", "grpo")}
    )
    with pytest.raises(ResultError, match=r"steps \[1\] on validation, \[1, 2\] on the test set"):
        selection_lines(table)


def test_without_validation_nothing_is_chosen():
    assert selection_lines(table_of({("grpo", "ood"): [4, 5], ("sft", "ood"): [4, 2]})) == []


def test_the_page_shows_what_a_leaking_choice_would_have_claimed(folder):
    html = (folder / "report.html").read_text("utf-8")
    assert "what choosing on the test would have claimed" in html
    assert (
        '<td class="n">step 2</td><td class="n">8.3 %</td>'
        '<td class="n">step 1</td><td class="n">25.0 %</td><td class="n">+16.7</td>'
    ) in html


def test_the_page_shows_area_and_gap_and_calls_a_gain_a_gain(folder):
    html = (folder / "report.html").read_text("utf-8")
    area = [line for line in html.split("<tr>") if '<td class="n">+39.6</td>' in line]
    assert [line.startswith('<th scope="row">street_test</th>') for line in area] == [True, True]
    assert ["gains since step 0" in line for line in area] == [True, False]
    (method,) = [line for line in html.split("<tr>") if '<td class="n">+75.0</td>' in line
                 and '<td class="n">-25.0</td>' in line]  # fmt: skip
    assert method.startswith('<th scope="row" class="sft-ink">SFT</th><td>studio_test</td>')
    assert "forgotten" not in html


def test_logs_without_validation_say_that_nothing_is_chosen(tmp_path):
    for name, hits in (("baseline", 5), ("sft_100", 1), ("r1_100", 8)):
        write_log(tmp_path, NAME.format("refgta_subsample", name), hits=hits)
    settings = standalone.REPORT.model_copy(update={"gallery": 0})
    found = report_from_logs(tmp_path, tmp_path / "out", settings=settings, seed=1)
    assert found.selection == []
    text = (tmp_path / "out/report.html").read_text("utf-8")
    assert "There are no validation results, so no checkpoint is chosen." in text
