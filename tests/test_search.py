"""The search: candidates are trained, scored on validation, and the best is trained with."""

import json
import shutil

import pytest

from tests.conftest import small_values, untracked_training
from tests.report_files import tiny_params, write_experiment
from vlm_r1 import paths
from vlm_r1.config import Params, parse_params
from vlm_r1.errors import ConfigError, ResultError
from vlm_r1.evaluation.search import Candidate, best_candidate, read_candidates, with_choice
from vlm_r1.report.choices import choice_lines
from vlm_r1.stages import candidate, search
from vlm_r1.stages import report as report_stage

RATES = [1e-4, 3e-5]


def searching(values: dict, **more) -> Params:
    for method in ("sft", "grpo"):
        values["search"][method] = {"learning_rate": list(RATES)}
    return parse_params(values | more, "searching")


def scored(rate: float, accuracy: float, mean_iou: float = 0.5, method: str = "sft") -> Candidate:
    return Candidate(
        method=method,
        learning_rate=rate,
        step=2,
        accuracy=accuracy,
        mean_iou=mean_iou,
        seconds=1,
        flops=1,
    )


def write_scores(root, *candidates: Candidate) -> None:
    for one in candidates:
        file = root / paths.candidate_file(one.method, one.learning_rate)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(one.model_dump_json())


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([scored(1e-4, 80), scored(3e-4, 81)], 3e-4),
        ([scored(1e-4, 80, 0.6), scored(3e-4, 80, 0.7)], 3e-4),
        ([scored(3e-4, 80), scored(1e-4, 80)], 1e-4),
    ],
)
def test_the_best_on_validation_is_chosen_then_by_iou_then_the_smaller_rate(candidates, chosen):
    assert best_candidate(candidates).learning_rate == chosen


def test_the_choice_replaces_the_learning_rate_of_its_method_alone(tmp_path):
    params = searching(small_values())
    write_scores(tmp_path, scored(1e-4, 70), scored(3e-5, 80))
    chosen = with_choice(params, tmp_path, "sft")
    assert chosen.sft.learning_rate == 3e-5 != params.sft.learning_rate
    assert chosen.grpo == params.grpo
    assert chosen.candidates("sft") == []


def test_without_a_search_nothing_is_read(small_params, tmp_path):
    assert with_choice(small_params, tmp_path, "sft") is small_params
    assert read_candidates(small_params, tmp_path, "grpo") == []


def test_a_search_without_every_score_is_refused(tmp_path):
    write_scores(tmp_path, scored(1e-4, 70))
    with pytest.raises(ResultError, match=r"results/search/sft/3e-05\.json: no such file"):
        with_choice(searching(small_values()), tmp_path, "sft")


def test_the_plan_lists_the_candidates_of_its_method(small_params, tmp_path):
    for params, rates in ((small_params, []), (searching(small_values()), RATES)):
        search.run(params, tmp_path, "grpo")
        file = tmp_path / "results/search/grpo/plan.json"
        assert json.loads(file.read_text()) == {"learning_rate": rates}


def test_a_candidate_that_is_not_in_the_search_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"got learning rate 0\.5 for sft"):
        candidate.run(searching(small_values()), tmp_path, "sft", 0.5)


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_candidate_is_scored_on_validation_and_its_weights_go(small_root, tmp_path, method):
    shutil.copytree(small_root / "data", tmp_path / "data")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(small_root / "models/base")
    params = searching(small_values())
    for rate in RATES:
        candidate.run(params, tmp_path, method, rate)
    found = read_candidates(params, tmp_path, method)
    assert [one.learning_rate for one in found] == RATES
    assert all(0 <= one.accuracy <= 100 and one.step == 2 and one.flops > 0 for one in found)
    assert [file.name for file in (tmp_path / "models/search").iterdir()] == []
    untracked_training(params, tmp_path, method)
    trained = json.loads((tmp_path / f"models/{method}/configuration.json").read_text())
    assert trained[method]["learning_rate"] == best_candidate(found).learning_rate


def test_the_settings_of_both_methods_stand_side_by_side():
    sft = {"learning_rate": 1e-4, "steps": None}
    grpo = {"learning_rate": 1e-5, "steps": 40, "beta": 0.04}
    train = {"steps": 20, "lora": None, "checkpoints": 5}
    lines = choice_lines(
        {"sft": {"train": train, "sft": sft}, "grpo": {"train": train, "grpo": grpo}}
    )
    assert [(line.term, line.sft, line.grpo, line.only) for line in lines] == [
        ("learning_rate", 1e-4, 1e-5, None),
        ("steps", 20, 40, None),
        ("lora", None, None, None),
        ("beta", None, 0.04, "grpo"),
    ]


def test_the_report_shows_what_was_recorded_and_how_many_were_tried(tmp_path):
    values = tiny_params().model_dump(mode="json")
    params = searching(values)
    write_experiment(tmp_path, params)
    write_scores(
        tmp_path,
        *(scored(rate, 60 + i, method=m) for m in ("sft", "grpo") for i, rate in enumerate(RATES)),
    )
    file = tmp_path / "models/sft/configuration.json"
    recorded = json.loads(file.read_text())
    recorded["sft"]["learning_rate"] = 0.123
    file.write_text(json.dumps(recorded))
    folder = report_stage.run(params, tmp_path)
    choices = json.loads((folder / "report.json").read_text())["choices"]
    assert next(x["sft"] for x in choices["lines"] if x["term"] == "learning_rate") == 0.123
    chosen = [c["learning_rate"] for c in choices["candidates"] if c["chosen"]]
    assert chosen == [RATES[1], RATES[1]]
    page = (folder / "report.html").read_text()
    assert "the best on validation out of 2 for SFT and 2 for GRPO" in page
    assert "Every term of the contract was equal" in page


def test_a_training_without_its_configuration_is_named(tmp_path):
    params = tiny_params()
    write_experiment(tmp_path, params)
    (tmp_path / "models/grpo/configuration.json").unlink()
    with pytest.raises(ResultError, match=r"models/grpo/configuration\.json: no such file"):
        report_stage.run(params, tmp_path)
