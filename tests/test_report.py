"""The report room: report.json's frozen schema, its numbers, the verdict's words, safe pages."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report_files import (
    CONTRACT,
    HIT,
    MISS,
    TRUTH,
    result_file,
    rows,
    tiny_params,
    write_experiment,
)
from vlm_r1 import paths
from vlm_r1.data.versions import DatasetVersion
from vlm_r1.errors import ContractError, DataError, ResultError
from vlm_r1.evaluation.coordinate_correction import Affine, correct_boxes
from vlm_r1.evaluation.score_text import scores_json
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.rec.prompts import question_for
from vlm_r1.rec.results import ResultFile, ResultRow, read_results
from vlm_r1.report.analysis import (
    at_last_step,
    compare,
    curve_points,
    decomposition_lines,
)
from vlm_r1.report.build import _file_notes
from vlm_r1.report.coordinate_flags import coordinate_flags
from vlm_r1.report.fairness import check_fairness
from vlm_r1.report.lineage import package_versions, read_lineage
from vlm_r1.report.render.figures import draw_figures
from vlm_r1.report.render.gallery import choose_cases, draw_case
from vlm_r1.report.render.page import markdown_text
from vlm_r1.report.results_table import EvalResult, ResultsTable, make_eval_result
from vlm_r1.report.schema import Report
from vlm_r1.stages import report as stage

PARAMS = tiny_params()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_experiment(root, PARAMS)
    stage.run(PARAMS, root, mlflow_run_id="run-1")
    return root


@pytest.fixture(scope="module")
def report(project) -> dict:
    return json.loads((project / paths.REPORT / "report.json").read_text("utf-8"))


def moved_rows(hits: int, shift_px: float = 0.0, count: int = 60) -> list[ResultRow]:
    """Rows on as many images; the first `hits` boxes are right but for a shift of all boxes."""
    lines = []
    for i in range(count):
        truth = (37.0 * i, 19.0 * (i % 7), 37.0 * i + 20 + i % 9, 19.0 * (i % 7) + 30)
        box = truth if i < hits else (3000 - 31.0 * i, 500, 3040 - 31.0 * i, 540)
        answer = [round(side + shift_px, 1) for side in box]
        lines.append(
            ResultRow(
                question=question_for(f"the cup {i}"),
                ground_truth=truth,
                model_output=f"<answer>{answer}</answer>",
                extracted_answer=tuple(answer),
                correct=0,
                image=f"{i}.png",
            )
        )
    return lines


def eval_result(method: str, dataset: str, step: int, lines: list, role: str = "ood") -> EvalResult:
    result = result_file(method, dataset, step, lines)
    return make_eval_result(
        result, method=method, dataset=dataset, role=role, step=step, source=f"{method}-{step}.json"
    )


# --- schema and numbers


def test_schema_is_frozen():
    """Tracking, flows and readers rely on it: a change here needs a new SCHEMA_VERSION."""
    schema = Report.model_json_schema()
    fields = {name: list(part["properties"]) for name, part in schema["$defs"].items()}
    assert (list(schema["properties"]), fields) == (
        [
            "schema_version", "verdict", "contract", "datasets", "curves", "gains", "comparisons",
            "pooled", "statistics", "selection", "chosen", "decomposition", "coordinate_flags",
            "fairness", "choices", "slices", "thresholds", "answers", "repeats", "prompts",
            "common_prompts", "published", "training", "cost", "cost_per_point", "compute",
            "reproduce", "lineage", "unfair", "detection",
        ],
        {
            "Verdict": [
                "title", "text", "status", "overall", "sets", "ood_dataset", "step", "difference",
                "ci_low", "ci_high", "p_value",
            ],
            "SetVerdict": [
                "datasets", "step", "difference", "p_holm", "gain", "gain_p_holm", "outcome",
            ],
            "GainLine": [
                "dataset", "step", "difference", "ci_low", "ci_high", "p_value", "p_holm",
            ],
            "PooledLine": ["datasets", "step", "difference", "p_holm", "gain", "gain_p_holm"],
            "ChosenLine": [
                "dataset", "grpo_steps", "sft_steps", "grpo_accuracy", "sft_accuracy",
                "difference", "gain",
            ],
            "GapDifference": ["id_datasets", "ood_datasets", "step", "difference"],
            "DatasetLine": [
                "name", "role", "records", "images", "digest", "quarantined", "leakage",
                "choice_leakage",
            ],
            "CurvePoint": [
                "method", "dataset", "step", "n", "accuracy", "ci_low", "ci_high", "mean_iou",
                "parse_rate", "corrected_accuracy", "corrected_ci_low", "corrected_ci_high",
                "files",
            ],
            "Comparison": [
                "dataset", "step", "difference", "ci_low", "ci_high", "p_value", "n", "n_images",
                "corrected_difference", "corrected_ci_low", "corrected_ci_high",
            ],
            "CoordinateFlag": [
                "method", "dataset", "step", "seed", "assumed", "better", "accuracy",
                "better_accuracy", "gain", "ci_low", "ci_high", "large", "file", "text",
            ],
            "DecompositionLine": [
                "method", "dataset", "from_step", "step",
                "change", "change_ci_low", "change_ci_high",
                "coordinates", "coordinates_ci_low", "coordinates_ci_high",
                "grounding", "grounding_ci_low", "grounding_ci_high",
                "recovered", "recovered_ci_low", "recovered_ci_high",
                "scale", "offset_px", "reason",
            ],
            "Statistics": [
                "seeds", "confidence", "power", "datasets", "methods", "gap_differences",
            ],
            "CurveSummary": [
                "first_step_above_zero", "first_step_below_zero", "minimum_detectable_effect",
                "area",
            ],
            "DatasetStatistics": [
                "first_step_above_zero", "first_step_below_zero", "minimum_detectable_effect",
                "area", "dataset", "steps", "gain",
            ],
            "StepTest": ["step", "p_value", "p_holm"],
            "MethodStatistics": [
                "method", "id_dataset", "ood_dataset", "step", "forgetting", "generalization_gap",
            ],
            "Estimate": ["points", "ci_low", "ci_high", "p_value"],
            "SelectionLine": [
                "method", "seed", "dataset", "chosen_step", "accuracy", "best_step",
                "best_accuracy", "overclaim",
            ],
            "Cost": [
                "method", "seconds", "prompts", "completions", "tokens", "flops", "checkpoints",
            ],
            "ChoiceLine": ["term", "sft", "grpo", "only"],
            "CandidateLine": [
                "method", "learning_rate", "step", "accuracy", "mean_iou", "seconds", "flops",
                "chosen",
            ],
            "Choices": ["lines", "candidates"],
            "CheckpointCost": ["step", "seconds", "tokens", "flops"],
            "Compute": ["points", "matched", "nearest", "reason"],
            "ComputePoint": [
                "method", "dataset", "step", "seconds", "tokens", "flops", "accuracy",
            ],
            "ComputeMatch": [
                "dataset", "flops", "sft_steps", "grpo_steps", "sft", "grpo", "difference",
                "difference_p_holm", "gain", "gain_p_holm",
            ],
            "NearestCheckpoints": [
                "dataset", "sft_step", "grpo_step", "flops_ratio", "seconds_ratio", "sft", "grpo",
                "difference",
            ],
            "CostPerPoint": [
                "method", "dataset", "step", "gain", "gain_ci_low", "gain_ci_high",
                "seconds", "seconds_ci_low", "seconds_ci_high",
                "tokens", "tokens_ci_low", "tokens_ci_high", "reason",
            ],
            "FairnessTerm": ["term", "status", "values"],
            "Share": ["percent", "ci_low", "ci_high"],
            "SliceLine": [
                "dataset", "step", "dimension", "name", "n", "n_images", "n_discordant",
                "undecided", "sft", "grpo", "difference",
            ],
            "LeftOut": ["dataset", "dimension", "reason"],
            "Slices": ["min_discordant", "lines", "left_out"],
            "ThresholdLine": [
                "dataset", "step", "threshold", "sft", "grpo", "difference", "gain",
            ],
            "CommonPromptLine": [
                "dataset", "step", "template", "n", "sft", "grpo", "difference", "p_holm",
            ],
            "CommonPrompts": ["lines", "sentence"],
            "Lengths": ["mean", "median", "p95", "longest"],
            "AnswerLine": [
                "method", "dataset", "step", "n", "tokens", "characters", "cut_off", "thought",
                "no_box", "thought_without_box",
            ],
            "CutOffLine": ["dataset", "step", "grpo", "sft", "difference", "p_holm"],
            "DetectionLine": [
                "method", "dataset", "step", "n", "f1", "ci_low", "ci_high", "precision", "recall",
                "all_right",
            ],
            "DetectionDifference": ["dataset", "step", "f1", "p_holm"],
            "Detection": ["lines", "differences"],
            "Answers": ["lines", "cut_offs", "warnings"],
            "RepeatLine": [
                "method", "dataset", "step", "repeats", "n", "accuracy", "ci_low", "ci_high",
                "greedy", "within", "between",
            ],
            "RepeatDifference": ["dataset", "step", "difference"],
            "Repeats": ["sampling", "lines", "differences"],
            "PromptLine": [
                "model", "step", "seed", "template", "own", "dataset", "n", "accuracy", "ci_low",
                "ci_high", "parse_rate", "best_space", "file",
            ],
            "TrainingLog": ["method", "quantities", "reason"],
            "PublishedSeries": ["source", "method", "datasets", "points", "withdrawn", "note"],
            "Command": ["what", "command"],
            "Lineage": ["git_commit", "data", "dvc", "versions", "mlflow_run_id"],
            "DatasetVersion": [
                "records", "records_sha256", "images", "images_archive", "images_sha256",
            ],
        },
    )  # fmt: skip
    assert schema["properties"]["schema_version"]["default"] == "4"


def test_report_json_follows_the_schema_and_leaves_out_unfair(report):
    assert "unfair" not in report
    Report.model_validate(report)


def test_difference_is_grpo_minus_sft_at_every_common_step(report):
    found = {(c["dataset"], c["step"]): c["difference"] for c in report["comparisons"]}
    assert found == {
        ("studio_test", 0): 0,
        ("studio_test", 1): pytest.approx(100 * -2 / 12),
        ("studio_test", 2): pytest.approx(100 * -1 / 12),
        ("street_test", 0): 0,
        ("street_test", 1): pytest.approx(100 * 5 / 12),
        ("street_test", 2): pytest.approx(100 * 9 / 12),
    }
    assert {(c["n"], c["n_images"]) for c in report["comparisons"]} == {(12, 6)}


def test_validation_is_listed_but_never_compared(report):
    roles = {d["name"]: d["role"] for d in report["datasets"]}
    assert roles == {"studio_test": "id", "street_test": "ood", "studio_val": "validation"}
    compared = {c["dataset"] for c in report["curves"] + report["comparisons"]}
    assert compared == {"studio_test", "street_test"}


def test_every_point_can_be_recomputed_from_its_result_file(project, report):
    assert len(report["curves"]) == 2 * 2 * 3
    confidence = 0.95
    for point in report["curves"]:
        file = paths.result_file(point["method"], point["dataset"], point["step"])
        scores = scores_json(score_results(read_results(project / file)), str(file), confidence)
        for field in ("n", "accuracy", "ci_low", "ci_high", "mean_iou", "parse_rate"):
            assert point[field] == scores[field]


def test_verdict_is_about_the_last_step_out_of_domain(report):
    verdict, last = report["verdict"], report["comparisons"][-1]
    assert (verdict["ood_dataset"], verdict["step"]) == ("street_test", 2)
    for field in ("difference", "ci_low", "ci_high", "p_value"):
        assert verdict[field] == last[field]


def test_same_inputs_give_the_same_bytes(project, tmp_path):
    again = tmp_path / "again"
    write_experiment(again, PARAMS)
    stage.run(PARAMS, again, mlflow_run_id="run-1")
    first, second = (root / paths.REPORT for root in (project, again))
    files = sorted(f.relative_to(first) for f in first.rglob("*") if f.is_file())
    # json, md, html; five figures as png and svg; metrics, plots of two datasets; the gallery;
    # rows.html and, of two datasets, rows, images, answers of two methods at three steps
    assert len(files) == 3 + 5 * 2 + 3 + 6 + 1 + 2 * (1 + 1 + 2 * 3)
    for file in files:
        if file.suffix in (".png", ".svg", ".js"):
            assert (first / file).read_bytes() == (second / file).read_bytes(), file
    texts = [json.loads((folder / "report.json").read_text("utf-8")) for folder in (first, second)]
    assert texts[0] == texts[1]


def test_rows_pair_by_key_whatever_their_order():
    lines = rows(3)
    forward = ResultsTable([eval_result("sft", "d", 0, lines), eval_result("grpo", "d", 0, lines)])
    turned = ResultsTable(
        [eval_result("sft", "d", 0, lines), eval_result("grpo", "d", 0, lines[::-1])]
    )
    assert (turned["grpo", "d", 0].hit == forward["grpo", "d", 0].hit).all()
    assert list(turned["grpo", "d", 0].first.rows) == lines


def test_rows_with_equal_keys_pair_by_occurrence():
    lines = rows(2, text="the same cup")
    table = ResultsTable(
        [eval_result("sft", "d", 0, lines), eval_result("grpo", "d", 0, lines[::-1])]
    )
    assert table["grpo", "d", 0].n == len(lines)


def test_other_rows_are_refused():
    other = rows(3)[:-1]
    with pytest.raises(
        ResultError, match=r"sft-0\.json: 12 rows, 1 not in the other.*grpo-0\.json: 11 rows"
    ):
        ResultsTable([eval_result("sft", "d", 0, rows(3)), eval_result("grpo", "d", 0, other)])


# --- coordinates or grounding


@pytest.fixture(scope="module")
def shifted() -> ResultsTable:
    """From 48 of 60 right, SFT goes to 42, all shifted by 12 px; GRPO to 54."""
    results = [
        eval_result("sft", "d", 0, moved_rows(48)),
        eval_result("grpo", "d", 0, moved_rows(48)),
        eval_result("sft", "d", 2, moved_rows(42, shift_px=12)),
        eval_result("grpo", "d", 2, moved_rows(54)),
    ]
    return ResultsTable(results, 0.95)


def test_a_change_is_split_into_coordinates_and_grounding(shifted):
    sft, grpo = decomposition_lines([at_last_step(shifted, "d")])
    assert (sft.method, sft.dataset, sft.from_step, sft.step) == ("sft", "d", 0, 2)
    assert sft.change == pytest.approx(-80)
    assert sft.coordinates == pytest.approx(-70)
    assert sft.grounding == pytest.approx(-10)
    assert sft.recovered == pytest.approx(70)
    assert sft.scale == pytest.approx((1, 1), abs=0.01)
    assert sft.offset_px == pytest.approx((-12, -12), abs=1)
    assert sft.reason is None
    assert (grpo.change, grpo.coordinates, grpo.grounding) == pytest.approx((10, 0, 10))
    assert grpo.scale == (1, 1)
    assert grpo.reason == "no scale and offset fit better than the boxes as they are"


def test_corrected_curves_stand_beside_the_raw_ones(shifted):
    points = {(p.method, p.step): p for p in curve_points(shifted)}
    sft = points["sft", 2]
    assert (sft.accuracy, sft.corrected_accuracy) == pytest.approx((0, 70))
    assert sft.corrected_ci_low < 70 < sft.corrected_ci_high
    last = compare(shifted)[-1]
    assert (last.difference, last.corrected_difference) == pytest.approx((90, 20))
    assert last.corrected_ci_low < 20 < last.corrected_ci_high


def test_the_correction_of_a_unit_does_not_hang_on_the_order_of_its_rows(shifted):
    """`score FILE` and the report, which brings all files into one order, agree."""
    lines = moved_rows(42, shift_px=12)[::-1]
    scores = score_results(result_file("sft", "d", 2, lines))
    truth = np.array([line.ground_truth for line in lines])
    alone = correct_boxes(scores.boxes, truth, scores.images)
    assert alone.halves == shifted["sft", "d", 2].correction.halves
    assert alone.halves != (Affine(), Affine())


def test_a_dashed_curve_is_drawn_where_the_correction_recovers_something(report, tmp_path):
    values = Report.model_validate(report)
    other = [p.model_copy(update={"corrected_accuracy": 99.0}) for p in values.curves]
    drawn = []
    for name, curves in (("raw", values.curves), ("corrected", other)):
        (tmp_path / name).mkdir()
        draw_figures(values.model_copy(update={"curves": curves}), tmp_path / name)
        drawn.append((tmp_path / name / "curves.png").read_bytes())
    assert drawn[0] != drawn[1]
    assert "corrected 99.0" in (tmp_path / "corrected" / "curves.svg").read_text("utf-8")
    assert "corrected 99.0" not in (tmp_path / "raw" / "curves.svg").read_text("utf-8")


def test_the_page_shows_the_split(project):
    text = (project / paths.REPORT / "report.html").read_text("utf-8")
    assert "Coordinates or grounding?" in text
    assert text.count("a half has boxes on 3 images, fewer than 5") >= 4


def test_boxes_in_another_coordinate_space_are_noted():
    """Logs that tell sizes: 0-1000 read as pixels of a 500 x 2000 image."""
    lines = [
        line.model_copy(
            update={
                "model_output": str([20, 5, 60, 15]),
                "image_size": (2000, 500),
                "input_size": (1988, 504),
                "image": f"{i}.png",
            }
        )
        for i, line in enumerate(rows(0))
    ]  # in pixels: 10, 10, 30, 30, which is TRUTH
    table = ResultsTable([eval_result("sft", "d", 0, lines), eval_result("grpo", "e", 0, rows(9))])
    [flag] = coordinate_flags(table)
    assert (flag.method, flag.assumed, flag.better, flag.large) == (
        *("sft", "original", "thousand"),
        True,
    )
    assert (flag.accuracy, flag.better_accuracy, flag.gain) == (0, 100, 100)
    assert _file_notes(table, [flag])[-1].startswith(
        "sft-0.json: boxes score 0.0 % as original pixels, 100.0 % as 0-1000"
    )


# --- the stage's inputs


def test_missing_result_is_named_and_nothing_is_written(tmp_path):
    write_experiment(tmp_path, PARAMS)
    (tmp_path / "results/grpo/street_test/step-1.json").unlink()
    with pytest.raises(ResultError, match=r"grpo/street_test/step-1\.json: no such file"):
        stage.run(PARAMS, tmp_path)
    assert not (tmp_path / paths.REPORT).exists()


def test_missing_cost_is_named(tmp_path):
    write_experiment(tmp_path, PARAMS)
    (tmp_path / "models/grpo/cost.json").unlink()
    with pytest.raises(ResultError, match=r"models/grpo/cost\.json: no such file"):
        stage.run(PARAMS, tmp_path)


def test_missing_image_is_named_and_the_old_report_stays(tmp_path):
    write_experiment(tmp_path, PARAMS)
    old = tmp_path / paths.REPORT / "report.md"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    for image in (tmp_path / PARAMS.datasets["street_test"].images).glob("*.png"):
        image.unlink()
    with pytest.raises(DataError, match="no such file"):
        stage.run(PARAMS, tmp_path)
    assert old.read_text() == "old"


def test_file_under_another_name_is_refused(tmp_path):
    write_experiment(tmp_path, PARAMS)
    results = tmp_path / "results/grpo/street_test"
    shutil.copy(results / "step-1.json", results / "step-2.json")
    with pytest.raises(ResultError, match="meta says"):
        stage.run(PARAMS, tmp_path)


# --- fairness


def other_terms(result: ResultFile) -> ResultFile:
    """As in the withdrawn comparison: SFT with a smaller pixel budget."""
    if result.meta["method"] == "grpo":
        return result
    meta = {**result.meta, "contract": {**CONTRACT, "max_pixels": 500}}
    return result.model_copy(update={"meta": meta})


def test_unequal_contracts_are_refused_or_stamped_everywhere(tmp_path, project):
    write_experiment(tmp_path, PARAMS, other_terms)
    with pytest.raises(ContractError, match="max_pixels: 500 != 1000"):
        stage.run(PARAMS, tmp_path)
    folder = stage.run(PARAMS, tmp_path, allow_unfair=True)
    report = json.loads((folder / "report.json").read_text("utf-8"))
    assert report["unfair"] == ["max_pixels: 500 != 1000"]
    assert report["verdict"]["text"].startswith("UNFAIR COMPARISON: the contracts differ in max_p")
    assert (report["verdict"]["title"], report["verdict"]["status"]) == (
        "Unfair comparison",
        "unfair",
    )
    assert "stays open" in report["verdict"]["text"]
    for page in ("report.md", "report.html"):
        text = (folder / page).read_text("utf-8")
        assert "UNFAIR COMPARISON" in text
        assert "max_pixels: 500 != 1000" in text
    page = (folder / "report.html").read_text("utf-8")
    assert page.count(">UNFAIR</text>") == page.count("<figure>") > 2  # every chart of the page
    for figure in ("curves", "training"):
        fair = project / paths.REPORT / f"{figure}.png"
        assert (folder / f"{figure}.png").read_bytes() != fair.read_bytes()
        assert "UNFAIR COMPARISON: max_pixels differ" in (folder / f"{figure}.svg").read_text()
        assert "UNFAIR" not in fair.with_suffix(".svg").read_text()


def test_other_records_under_one_name_are_a_difference_of_terms():
    a, b = eval_result("sft", "d", 0, rows(1)), eval_result("grpo", "d", 0, rows(1))
    object.__setattr__(b, "records_digest", "another")
    with pytest.raises(ContractError, match="d: 'd-d' != 'another'"):
        check_fairness([a, b], allow_unfair=False)
    assert check_fairness([a, b], allow_unfair=True) == ["d: 'd-d' != 'another'"]


# --- gallery


def test_gallery_shows_disagreements_first_and_both_winners_alike():
    """24 rows on 12 images: grpo alone right on images 0-3, sft alone on image 4."""
    base = [r for r in rows(0) for _ in range(2)]
    lines = [
        r.model_copy(update={"question": f"q{i}", "image": f"{i // 2}.png"})
        for i, r in enumerate(base)
    ]
    right = {"grpo": range(8), "sft": range(8, 10)}
    eval_results = [
        eval_result(m, "d", 1, [
            r.model_copy(update={"model_output": HIT if i in right[m] else MISS})
            for i, r in enumerate(lines)
        ])
        for m in ("sft", "grpo")
    ]  # fmt: skip
    table = ResultsTable(eval_results)
    assert [c.right for c in choose_cases(table, 2, 0, None)] == ["grpo", "sft"]
    cases = choose_cases(table, 7, 0, None)
    assert [c.right for c in cases] == ["grpo"] * 4 + ["sft"] + ["neither"] * 2
    assert all(c.png is None for c in cases)
    assert choose_cases(table, 0, 0, None) == []


def test_no_image_is_shown_twice(project):
    page = (project / paths.REPORT / "report.html").read_text("utf-8")
    assert page.count('<article class="case">') == PARAMS.report.gallery == 6
    images = re.findall(r'both answers" src="([^"]+)"', page)
    assert len(set(images)) == 6


def test_small_images_grow_and_boxes_are_drawn_at_their_scale():
    png = draw_case(Image.new("RGB", (80, 60), "black"), [TRUTH], sft=[], grpo=[])
    shown = np.array(Image.open(io.BytesIO(png)))
    assert shown.shape == (300, 400, 3)  # 5 times
    assert (shown[50, 100] == 255).all()  # the true box's upper edge: y = 10 * 5
    assert (shown[100, 100] == 0).all()


def test_absurd_boxes_are_drawn_along_the_edge():
    far = (-1e7, 5.0, 1e7, 20.0)
    png = draw_case(Image.new("RGB", (800, 60)), [TRUTH], sft=[far], grpo=[far])
    assert Image.open(io.BytesIO(png)).size == (800, 60)


# --- pages

EVIL = "<script>alert(1)</script> | `x` **b** [l](http://e.org)\n# h\n\n![p](q)"


def test_text_of_models_and_data_is_inert(tmp_path):
    def poison(result: ResultFile) -> ResultFile:
        lines = [
            line.model_copy(
                update={
                    "question": f"{EVIL} {i}",
                    "model_output": f"{EVIL} {line.model_output}",
                }
            )
            for i, line in enumerate(result.results)
        ]
        meta = {**result.meta, "contract": {**CONTRACT, EVIL: EVIL}}
        return result.model_copy(update={"results": lines, "meta": meta})

    write_experiment(tmp_path, PARAMS, poison)
    folder = stage.run(PARAMS, tmp_path)
    html = (folder / "report.html").read_text("utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | `x`" in html
    markdown = (folder / "report.md").read_text("utf-8")
    assert "<script" not in markdown
    assert "&#60;script&#62;alert(1)&#60;/script&#62; &#124; &#96;x&#96; &#42;&#42;b" in markdown
    assert "](http" not in markdown
    assert "\n# h" not in markdown
    (term,) = [line for line in markdown.splitlines() if "alert" in line]
    assert term.count("|") == 4


def test_markdown_text_keeps_plain_names_readable():
    assert markdown_text("refcoco_val: p = 0.1\nnext") == "refcoco_val: p = 0.1 next"
    assert markdown_text("_a_ __b__") == "&#95;a&#95; &#95;&#95;b&#95;&#95;"


def test_html_is_one_file_that_fetches_nothing(project):
    html = (project / paths.REPORT / "report.html").read_text("utf-8")
    assert "http" not in html
    sources = re.findall(r'src="([^"]{0,22})', html)
    assert sources == ["data:image/png;base64,"] * PARAMS.report.gallery
    links = set(re.findall(r'href="([^"]+)"', html)) - {"rows.html"}  # the viewer beside it
    assert links
    assert all(f'id="{link.removeprefix("#")}"' in html for link in links)
    assert "<script" not in html
    assert "url(" not in html
    assert "prefers-color-scheme: dark" in html


def test_the_image_of_the_markdown_lies_beside_it(project):
    folder = project / paths.REPORT
    linked = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (folder / "report.md").read_text("utf-8"))
    assert linked == ["curves.png"]
    assert (folder / "curves.png").is_file()


def test_the_markdown_is_a_summary_that_links_the_whole_report(project):
    folder = project / paths.REPORT
    text = (folder / "report.md").read_text("utf-8")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == [
        "On equal terms?",
        "What training added: GRPO minus SFT",
        "GRPO minus SFT as the checkpoints stand",
        "What each method gained since step 0",
    ]
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)]+)\)", text)
    assert links == ["report.html", "report.json"]
    assert all((folder / link).is_file() for link in links)
    assert "| street_test | 2 | +75.0 |" in text


# --- lineage


def test_lineage_reads_dvc_lock_but_not_what_comes_after_the_results(tmp_path):
    outs = "outs: [{path: models/sft, hash: md5, md5: aa.dir}]"
    after = "outs: [{path: reports/generalization, hash: md5, md5: bb.dir}]"
    lock = f"schema: '2.0'\nstages:\n  sft: {{cmd: x, {outs}}}\n  report: {{cmd: y, {after}}}\n"
    (tmp_path / "dvc.lock").write_text(lock)
    lineage = read_lineage(tmp_path, mlflow_run_id=None)
    assert lineage.dvc == {"sft": {"models/sft": "aa.dir"}}
    assert lineage.mlflow_run_id is None


def test_lineage_names_the_bytes_of_every_dataset(tmp_path):
    version = DatasetVersion(
        records="data/own/records.json",
        records_sha256="a" * 64,
        images="data/unpacked/refgta",
        images_archive="refgta.zip",
        images_sha256="b" * 64,
    )
    file = tmp_path / paths.version_file("refgta_test")
    file.parent.mkdir(parents=True)
    file.write_text(version.model_dump_json())
    assert read_lineage(tmp_path, mlflow_run_id=None).data == {"refgta_test": version}


def test_lineage_without_git_and_dvc_is_empty(tmp_path):
    lineage = read_lineage(tmp_path, mlflow_run_id="run-1")
    assert (lineage.git_commit, lineage.dvc, lineage.mlflow_run_id) == (None, {}, "run-1")


def test_versions_are_read_without_importing():
    assert {"python", "vlm-r1", "torch", "trl"} <= set(package_versions())
