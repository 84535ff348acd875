"""Several training runs of a method: where they lie, what they share, how the report pools them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.report_files import CONTRACT, result_file, rows, tiny_params, write_experiment
from tests.tracking_files import copy_database, write_result, write_training
from tests.tracking_files import tiny_params as tracked_params
from tests.tracking_files import write_experiment as write_tracked
from vlm_r1 import paths, tracking
from vlm_r1.config import METHODS, Params, parse_params
from vlm_r1.errors import ConfigError, ContractError, ResultError
from vlm_r1.rec.results import write_results
from vlm_r1.report.fairness import check_fairness
from vlm_r1.report.results_table import ResultsTable, make_eval_result
from vlm_r1.stages import report as stage

FIRST, SECOND = 42, 7
# Right answers of twelve at the last step, out of domain; the first seed's are (sft, grpo) = 1, 10.
SECOND_HITS = {"sft": 3, "grpo": 6}


def with_seeds(params: Params, *seeds: int) -> Params:
    values = params.model_dump()
    values["experiment"]["seeds"] = list(seeds)
    return parse_params(values, "two seeds")


PARAMS = with_seeds(tiny_params(), SECOND)


def with_seed(result, seed: int):
    contract = {**CONTRACT, "seed": seed}
    return result.model_copy(update={"meta": {**result.meta, "contract": contract}})


def write_two_seeds(root: Path) -> None:
    """The tiny experiment, and a second run of both methods that differs at the last step."""
    write_experiment(root, PARAMS, lambda result: with_seed(result, FIRST))
    for dataset in PARAMS.evaluated_datasets:
        for method in METHODS:
            for step in PARAMS.train.step_grid:
                hits = SECOND_HITS[method] if step == 2 else 4
                result = with_seed(result_file(method, dataset, step, rows(hits)), SECOND)
                run = PARAMS.run_name(method, SECOND)
                write_results(root / paths.result_file(run, dataset, step), result)
    for method in METHODS:  # the second run took twice as long
        cost = json.loads((root / paths.run_dir(method) / "cost.json").read_text("utf-8"))
        run = root / paths.run_dir(PARAMS.run_name(method, SECOND))
        run.mkdir(parents=True)
        (run / "cost.json").write_text(json.dumps(cost | {"seconds": 2 * cost["seconds"]}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_two_seeds(root)
    return stage.run(PARAMS, root)


@pytest.fixture(scope="module")
def report(folder) -> dict:
    return json.loads((folder / "report.json").read_text("utf-8"))


def test_the_first_run_keeps_the_methods_folder_and_further_ones_add_their_seed():
    assert PARAMS.run_name("sft") == PARAMS.run_name("sft", FIRST) == "sft"
    assert PARAMS.run_name("grpo", SECOND) == "grpo-7"
    assert PARAMS.all_seeds == [FIRST, SECOND]


def test_a_further_run_differs_in_its_seed_alone():
    own = PARAMS.with_seed(SECOND)
    assert own.experiment.seed == SECOND
    assert own.model_copy(update={"experiment": PARAMS.experiment}) == PARAMS
    assert PARAMS.with_seed(None) is PARAMS.with_seed(FIRST) is PARAMS


def test_a_seed_that_the_experiment_does_not_name_is_refused():
    with pytest.raises(ConfigError, match=r"(?s)got seed 8.*experiment.seeds \[7\]"):
        PARAMS.with_seed(8)


@pytest.mark.parametrize("seeds", [[FIRST], [SECOND, SECOND]])
def test_a_seed_named_twice_is_refused(seeds):
    with pytest.raises(ConfigError, match="name one seed twice"):
        with_seeds(PARAMS, *seeds)


def test_the_report_pools_the_seeds_and_says_how_many(report):
    last = next(c for c in report["comparisons"] if (c["dataset"], c["step"]) == ("street_test", 2))
    assert last["difference"] == pytest.approx(100 * ((10 + 6) - (1 + 3)) / 24)
    accuracy = {c["method"]: c["accuracy"] for c in report["curves"]
                if (c["dataset"], c["step"]) == ("street_test", 2)}  # fmt: skip
    assert accuracy == {"sft": pytest.approx(100 * 4 / 24), "grpo": pytest.approx(100 * 16 / 24)}
    assert report["statistics"]["seeds"] == 2
    assert "2 seeds of each method" in report["verdict"]["text"]


def test_the_cost_is_the_mean_over_the_runs(report):
    assert [cost["seconds"] for cost in report["cost"]] == [12.5 * 1.5, 12.5 * 1.5]


def test_two_unlike_runs_widen_the_interval_of_the_first_alone(report, tmp_path):
    write_experiment(tmp_path, PARAMS, lambda result: with_seed(result, FIRST))
    alone = json.loads((stage.run(tiny_params(), tmp_path) / "report.json").read_text("utf-8"))
    widths = [r["verdict"]["ci_high"] - r["verdict"]["ci_low"] for r in (alone, report)]
    assert widths[1] > widths[0]


def test_area_forgetting_and_gap_are_means_over_the_seeds(report):
    """Out of domain, twelfths: grpo 4, 8, 10 and 4, 4, 6; sft 4, 3, 1 and 4, 4, 3."""
    areas = {one["dataset"]: one["area"]["points"] for one in report["statistics"]["datasets"]}
    first, second = [0, 5, 9], [0, 0, 3]
    curve = np.mean([first, second], axis=0)
    assert areas["street_test"] == pytest.approx(100 * np.trapezoid(curve) / 2 / 12)
    forgot = {m["method"]: m["forgetting"]["points"] for m in report["statistics"]["methods"]}
    assert forgot["grpo"] == pytest.approx(100 * (4 - (10 + 6) / 2) / 12)


def eval_result(seed: int, method: str = "sft", step: int = 0, **terms):
    result = result_file(method, "d", step, rows(3))
    contract = {**CONTRACT, "seed": seed} | terms
    return make_eval_result(
        result.model_copy(update={"meta": {**result.meta, "contract": contract}}),
        method=method,
        dataset="d",
        role="ood",
        step=step,
        source=f"{method}-{seed}-{step}",
        seed=seed,
    )


def test_every_point_needs_every_seed():
    with pytest.raises(ResultError, match=r"(?s)at step 1: seeds \[42\].*each of \[42, 7\]"):
        ResultsTable([eval_result(FIRST), eval_result(SECOND), eval_result(FIRST, step=1)])


def test_runs_may_differ_in_their_seed_and_in_nothing_else():
    two = [eval_result(seed, method) for seed in (FIRST, SECOND) for method in METHODS]
    assert check_fairness(two, allow_unfair=False) == []
    with pytest.raises(ContractError, match="max_pixels: 1000 != 500"):
        check_fairness([*two[:3], eval_result(SECOND, "grpo", max_pixels=500)], allow_unfair=False)
    other = replace(two[3], contract={**CONTRACT, "seed": 8})
    with pytest.raises(ContractError, match="seed: 7 != 8"):
        check_fairness([*two[:3], other], allow_unfair=False)


@pytest.mark.usefixtures("no_server")
def test_a_further_run_is_a_child_of_the_same_parent(tmp_path, empty):
    root = copy_database(empty, tmp_path)
    params = with_seeds(tracked_params("seeds"), SECOND)
    contract = write_tracked(root, params)
    own = contract.model_copy(update={"seed": SECOND})
    for method in METHODS:
        run = params.run_name(method, SECOND)
        write_training(root, run, own, "second")
        for dataset in params.evaluated_datasets:
            for step in own.step_grid:
                write_result(root, params, own, method, dataset, step, 2)
    tracking.rebuild(root, params)
    client = tracking.configure(root)
    experiment = client.get_experiment_by_name("seeds").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    parent = runs.pop(f"pipeline-{contract.digest[:8]}")
    assert set(runs) == {"sft", "grpo", "sft-7", "grpo-7"}
    assert {r.data.tags["mlflow.parentRunId"] for r in runs.values()} == {parent.info.run_id}
    assert runs["sft-7"].data.params["experiment.seed"] == "7"
