"""Accuracy against cost, and both methods at equal FLOPs, worked by hand."""

import json
from pathlib import Path

import pytest

from tests.report_files import (
    STEPS,
    checkpoint_costs,
    result_file,
    rows,
    tiny_params,
    write_experiment,
)
from vlm_r1 import paths
from vlm_r1.errors import ResultError
from vlm_r1.report.compute import UNKNOWN, compute_block, mean_cost
from vlm_r1.report.render.cost_charts import flops_text
from vlm_r1.report.results_table import ResultsTable, make_eval_result
from vlm_r1.report.schema import CheckpointCost, Cost
from vlm_r1.stages import report as stage
from vlm_r1.stats.interpolation import neighbor_weights
from vlm_r1.stats.intervals import paired_difference

HITS = {"sft": (4, 3, 1), "grpo": (4, 8, 10)}  # of 12 rows on 6 images, at steps 0, 1, 2


def table(hits: dict = HITS) -> ResultsTable:
    return ResultsTable(
        [
            make_eval_result(
                result_file(method, "street", step, rows(count)),
                method=method,
                dataset="street",
                role="ood",
                step=step,
                source=f"{method}-{step}",
            )
            for method, counts in hits.items()
            for step, count in zip(STEPS, counts, strict=True)
        ]
    )


def costs(method: str, factor: float = 1.0) -> list[CheckpointCost]:
    found = [CheckpointCost(**cost) for cost in checkpoint_costs(method)]
    return [cost.model_copy(update={"flops": factor * cost.flops}) for cost in found]


COSTS = {method: costs(method) for method in HITS}


@pytest.mark.parametrize(
    ("at", "weights"),
    [
        (15, [0, 0.75, 0.25]),
        (0, [1, 0, 0]),
        (10, [0, 1, 0]),
        (30, [0, 0, 1]),
        (2.5, [0.75, 0.25, 0]),
    ],
)
def test_a_place_between_two_points_weighs_the_nearer_one_more(at, weights):
    assert neighbor_weights([0, 10, 30], at).tolist() == pytest.approx(weights)


@pytest.mark.parametrize(("places", "at"), [([0, 10], 11), ([0, 10], -1), ([0, 0], 0), ([5], 5)])
def test_nothing_is_read_outside_of_a_curve(places, at):
    with pytest.raises(ResultError, match="need two or more rising places"):
        neighbor_weights(places, at)


def test_at_equal_flops_a_method_is_read_between_its_checkpoints():
    """SFT has 2e11 FLOPs at step 2; GRPO is then half way to step 1: (4 + 8) / 2 of 12 rows."""
    first, last = compute_block(table(), COSTS).matched
    assert (last.flops, last.sft_steps, last.grpo_steps) == (2e11, (2, 2), (0, 1))
    assert (last.sft, last.grpo) == pytest.approx((100 / 12, 600 / 12))
    assert (last.difference.points, last.gain.points) == pytest.approx((500 / 12, 500 / 12))
    assert (first.flops, first.sft_steps, first.grpo_steps) == (1e11, (1, 1), (0, 1))
    assert first.difference.points == pytest.approx(100 * (5 - 3) / 12)
    found = table()
    hits = (found["grpo", "street", 0].hit * 1.0 + found["grpo", "street", 1].hit) / 2
    by_hand = paired_difference(
        hits, found["sft", "street", 2].hit, found["sft", "street", 2].images, found.confidence
    )
    assert (last.difference.ci_low, last.difference.p_value) == (by_hand.low, by_hand.p_value)


def test_the_gain_leaves_out_what_stood_before_training():
    """GRPO starts 3 of 12 rows ahead by its prompt, and then learns nothing."""
    (_, last) = compute_block(table({"sft": (4, 4, 4), "grpo": (7, 7, 7)}), COSTS).matched
    assert last.difference.points == pytest.approx(25)
    assert last.gain.points == 0


def test_with_equal_costs_it_is_the_comparison_at_equal_steps():
    block = compute_block(table(), {"sft": costs("sft"), "grpo": costs("sft")})
    assert [(match.sft_steps, match.grpo_steps) for match in block.matched] == [
        ((1, 1), (1, 1)),
        ((2, 2), (2, 2)),
    ]
    assert [match.difference.points for match in block.matched] == pytest.approx(
        [100 * 5 / 12, 100 * 9 / 12]
    )


def test_the_nearest_checkpoints_have_no_nearer_one_of_the_other_method():
    """SFT at 1 and 2, GRPO at 4 and 8 (e11 FLOPs): 2 and 4 are each other's nearest, alone."""
    (pair,) = compute_block(table(), COSTS).nearest
    assert (pair.sft_step, pair.grpo_step, pair.flops_ratio) == (2, 1, 2.0)
    assert pair.seconds_ratio == 0.5
    assert pair.difference.points == pytest.approx(100 * (8 - 1) / 12)


def test_points_pair_accuracy_with_cost_and_begin_at_the_base():
    points = compute_block(table(), COSTS).points
    assert [(p.method, p.step, p.flops) for p in points] == [
        *(("sft", 0, 0), ("sft", 1, 1e11), ("sft", 2, 2e11)),
        *(("grpo", 0, 0), ("grpo", 1, 4e11), ("grpo", 2, 8e11)),
    ]
    assert points[1].accuracy == pytest.approx(100 * 3 / 12)


def test_without_costs_the_block_is_empty_and_says_why():
    for known in ({}, {"sft": costs("sft")}, {"sft": [], "grpo": []}):
        block = compute_block(table(), known)
        assert (block.points, block.matched, block.nearest, block.reason) == ([], [], [], UNKNOWN)


def test_without_a_step_0_only_checkpoints_are_compared():
    found = table()
    block = compute_block(
        ResultsTable([result for result in found.results if result.step > 0]), COSTS
    )
    assert block.matched == []
    assert len(block.nearest) == 1


def test_costs_of_several_runs_are_their_mean():
    run = {"method": "sft", "seconds": 1, "prompts": 1, "completions": 1, "tokens": 1, "flops": 1}
    runs = [Cost(**run, checkpoints=costs("sft", factor)) for factor in (1, 3)]
    assert [cost.flops for cost in mean_cost(runs).checkpoints] == [2e11, 4e11]
    assert mean_cost([Cost(**run)]).checkpoints == []


def test_flops_are_shown_with_a_prefix():
    assert flops_text(1.31e12) == "1.31 teraFLOPs"
    assert flops_text(999) == "999 FLOPs"


def test_the_report_has_the_block_its_section_its_figure_and_its_metrics(tmp_path: Path):
    params = tiny_params()
    write_experiment(tmp_path, params)
    folder = stage.run(params, tmp_path)
    block = json.loads((folder / "report.json").read_text())["compute"]
    assert {match["dataset"] for match in block["matched"]} == set(params.test_datasets)
    assert block["reason"] is None
    page = (folder / "report.html").read_text()
    assert "<h2>At equal compute</h2>" in page
    assert "With 200 gigaFLOPs each" in page
    assert (folder / "compute.png").exists()
    metrics = json.loads((folder / "metrics.json").read_text())["equal_flops"]
    assert metrics["street_test"]["difference"] == pytest.approx(500 / 12)


def test_costs_without_checkpoints_give_a_report_without_the_section(tmp_path: Path):
    params = tiny_params()
    write_experiment(tmp_path, params)
    for method in HITS:
        file = tmp_path / paths.run_dir(method) / "cost.json"
        cost = json.loads(file.read_text())
        del cost["checkpoints"]
        file.write_text(json.dumps(cost))
    folder = stage.run(params, tmp_path)
    assert "At equal compute" not in (folder / "report.html").read_text()
    assert json.loads((folder / "metrics.json").read_text())["equal_flops"] == {}
