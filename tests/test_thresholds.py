"""GRPO minus SFT at every IoU threshold: strictness, raw and gained, and the chart."""

import numpy as np
import pytest

from tests.report_files import result_file
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.rec.prompts import question_for
from vlm_r1.rec.results import ResultRow
from vlm_r1.report.render.threshold_charts import threshold_charts
from vlm_r1.report.results_table import EvalResult, ResultsTable, make_eval_result
from vlm_r1.report.schema import DatasetLine, Report
from vlm_r1.report.thresholds import THRESHOLDS, passes, threshold_lines


def result(method: str, step: int, overlaps: list[float]) -> EvalResult:
    """Rows on an image each, whose boxes have these IoUs with the true ones."""
    rows = [
        ResultRow(
            question=question_for(f"cup {i}"),
            ground_truth=(0, 0, 100, 10),
            model_output=f"[0, 0, {100 * overlap}, 10]",
            extracted_answer=(0, 0, 100 * overlap, 10),
            correct=int(overlap > 0.5),
            image=f"{i}.png",
        )
        for i, overlap in enumerate(overlaps)
    ]
    file = result_file(method, "d", step, rows)
    assert score_results(file).overlap == pytest.approx(overlaps)
    return make_eval_result(
        file, method=method, dataset="d", role="ood", step=step, source=f"{method}-{step}"
    )


def lines(*results: EvalResult) -> dict[float | None, object]:
    return {line.threshold: line for line in threshold_lines(ResultsTable(results))}


def test_thresholds_are_those_of_coco_and_lower_ones():
    assert (THRESHOLDS[0], THRESHOLDS[-1], len(THRESHOLDS)) == (0.1, 0.95, 18)
    assert np.diff(THRESHOLDS) == pytest.approx(0.05)


def test_an_iou_on_the_threshold_is_not_above_it():
    assert passes(np.array([0.5, 0.5001, 0.0]), 0.5).tolist() == [0, 1, 0]
    assert passes(np.array([0.25, 0.5]), None).tolist() == [0.25, 0.5]


def test_equal_accuracy_at_one_half_can_hide_less_exact_boxes():
    """Both find all four; SFT's boxes have an IoU of .9, GRPO's one of .6."""
    found = lines(result("sft", 20, [0.9] * 4), result("grpo", 20, [0.6] * 4))
    assert len(found) == 19
    assert (found[0.5].sft, found[0.5].grpo, found[0.5].difference.points) == (100, 100, 0)
    assert (found[0.7].sft, found[0.7].grpo, found[0.7].difference.points) == (100, 0, -100)
    assert found[0.95].sft == 0
    assert found[None].difference.points == pytest.approx(-30)
    assert found[0.7].gain is None  # there is no step 0


def test_gains_leave_out_what_stood_at_step_0():
    """At .7 GRPO begins with 1 of 4 and ends with 3; SFT begins with 2 and ends with 3."""
    found = lines(
        result("sft", 0, [0.8, 0.8, 0.2, 0.2]),
        result("sft", 20, [0.8, 0.8, 0.8, 0.2]),
        result("grpo", 0, [0.8, 0.2, 0.2, 0.2]),
        result("grpo", 20, [0.8, 0.8, 0.8, 0.2]),
    )
    assert found[0.7].difference.points == 0
    assert found[0.7].gain.points == pytest.approx(25)
    assert found[None].gain.points == pytest.approx(15)
    assert found[0.7].gain.ci_low <= 0 <= found[0.7].gain.ci_high
    assert found[0.7].gain.p_value == 1  # one image differs


def test_step_0_alone_has_no_gains():
    found = lines(result("sft", 0, [0.8, 0.2]), result("grpo", 0, [0.8, 0.8]))
    assert found[0.5].gain is None
    assert found[0.5].difference.points == pytest.approx(50)


@pytest.mark.parametrize("with_start", [True, False])
def test_the_chart_has_a_point_for_each_threshold(with_start):
    ends = [result("sft", 20, [0.9, 0.9]), result("grpo", 20, [0.6, 0.9])]
    starts = [result("sft", 0, [0.2, 0.2]), result("grpo", 0, [0.2, 0.2])] if with_start else []
    dataset = DatasetLine(name="d", role="ood", records=2, images=2, digest=None)
    table = ResultsTable([*starts, *ends])
    report = Report.model_construct(datasets=[dataset], thresholds=threshold_lines(table))
    [chart] = threshold_charts(report)
    assert [curve.style for curve in chart.curves] == ["dashed", "solid"][1 - with_start :]
    assert [x for x, _ in chart.curves[-1].points] == list(THRESHOLDS)
    assert (
        chart.curves[-1]
        .tips[12]
        .startswith(
            "IoU > 0.7, gains: -50.0 (" if with_start else "IoU > 0.7, as they stand: -50.0 ("
        )
    )
    low, high = chart.y_range
    assert low < -50
    assert high > 0
