"""Choosing on validation alone, and the registry's aliases."""

import json
import shutil

import pytest

from tests.tracking_files import (
    copy_database,
    tiny_params,
    write_experiment,
    write_result,
    write_training,
)
from vlm_r1 import paths, tracking
from vlm_r1.errors import ContractError, ModelError, ResultError
from vlm_r1.evaluation.selection import select
from vlm_r1.rec.contract import TrainingContract
from vlm_r1.stages import register
from vlm_r1.tracking import registry

NAME = "vlm-r1-rec"
pytestmark = pytest.mark.usefixtures("no_server")


@pytest.fixture(scope="module")
def params():
    return tiny_params()


@pytest.fixture(scope="module")
def registered(tmp_path_factory, params, empty):
    root = copy_database(empty, tmp_path_factory.mktemp("registered"))
    write_experiment(root, params)
    register.run(params, root)
    return root


@pytest.fixture
def files(tmp_path, params):
    """An experiment's files that a test may spoil; no database is made."""
    return tmp_path, write_experiment(tmp_path, params)


def test_each_methods_best_on_validation_is_chosen(files, params):
    root, contract = files
    chosen = select(params, root)
    assert (chosen.champion.method, chosen.champion.step) == ("grpo", 1)
    assert (chosen.challenger.method, chosen.challenger.step) == ("sft", 2)
    assert (chosen.champion.accuracy, chosen.challenger.accuracy) == (100.0, 75.0)
    assert chosen.datasets == ["studio_val"]
    assert chosen.contract == contract.digest


@pytest.mark.parametrize("spoil", ["delete", "garble", "flatter"])
def test_test_and_ood_results_do_not_influence_the_choice(files, params, spoil):
    root, contract = files
    honest = select(params, root)
    for dataset in params.test_datasets:
        for method in ("sft", "grpo"):
            for step in (0, 1, 2):
                file = root / paths.result_file(method, dataset, step)
                if spoil == "delete":
                    file.unlink()
                elif spoil == "garble":
                    file.write_text("{")
                else:
                    worst = (method, step) == ("sft", 1)
                    write_result(root, params, contract, method, dataset, step, 4 if worst else 0)
    assert select(params, root) == honest


def test_the_base_is_never_chosen(files, params):
    root, contract = files
    for method in ("sft", "grpo"):
        write_result(root, params, contract, method, "studio_val", 0, hits=4)
        write_result(root, params, contract, method, "studio_val", 1, hits=0)
        write_result(root, params, contract, method, "studio_val", 2, hits=1)
    assert {select(params, root).champion.step, select(params, root).challenger.step} == {2}


def test_ties_go_to_mean_iou_then_to_the_earliest_step(files, params):
    root, contract = files
    for step in (1, 2):
        write_result(root, params, contract, "grpo", "studio_val", step, hits=3)
        write_result(root, params, contract, "sft", "studio_val", step, hits=3)
    # Half a box at step 2: IoU 0.5 is no hit, yet it lifts the mean from 0.75 to 0.875.
    file = root / paths.result_file("grpo", "studio_val", 2)
    log = json.loads(file.read_text())
    log["results"][3]["model_output"] = '{"bbox_2d": [0, 0, 28, 14]}'
    file.write_text(json.dumps(log))
    chosen = select(params, root)
    assert (chosen.champion.method, chosen.champion.step) == ("grpo", 2)
    assert chosen.champion.mean_iou == 0.875
    assert (chosen.challenger.method, chosen.challenger.step) == ("sft", 1)


def test_results_of_different_contracts_are_not_compared(files, params):
    root, contract = files
    other = TrainingContract(**{**contract.model_dump(), "max_pixels": 1_000_000})
    write_result(root, params, other, "grpo", "studio_val", 2, hits=4)
    with pytest.raises(ContractError, match=r"max_pixels: 12845056 != 1000000"):
        select(params, root)


def test_a_missing_validation_result_is_named(files, params):
    root, _ = files
    (root / paths.result_file("sft", "studio_val", 2)).unlink()
    with pytest.raises(ResultError, match=r"sft/studio_val/step-2.json: no such file"):
        select(params, root)


def model_id_of(version):
    return version.source.removeprefix("models:/")


def test_both_choices_are_versions_with_aliases_and_tags(registered):
    client = tracking.configure(registered)
    champion = client.get_model_version_by_alias(NAME, "champion")
    challenger = client.get_model_version_by_alias(NAME, "challenger")
    assert client.get_logged_model(model_id_of(champion)).name == "grpo-step-1"
    assert client.get_logged_model(model_id_of(challenger)).name == "sft-step-2"
    assert champion.tags["checkpoint"] == "models/grpo/checkpoint-1"
    assert champion.tags["validation_accuracy"] == "100.00"
    assert champion.tags["validation_status"] == "passed"
    assert set(champion.tags) >= {"method", "step", "digest", "contract", "validation_datasets"}


def test_registering_again_makes_no_version_and_the_same_file(registered, params):
    client = tracking.configure(registered)
    before = (registered / paths.SELECTION).read_bytes()
    register.run(params, registered)
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 2
    assert (registered / paths.SELECTION).read_bytes() == before
    assert json.loads(before)["champion"]["step"] == 1


def test_an_alias_leads_to_the_checkpoint(registered):
    folder = registered / "models/grpo/checkpoint-1"
    version = tracking.configure(registered).get_model_version_by_alias(NAME, "champion").version
    assert registry.resolve(registered, f"models:/{NAME}@champion") == folder
    assert registry.resolve(registered, f"models:/{NAME}/{version}") == folder


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("models:/vlm-r1-rec@nobody", "nobody"),
        ("models:/vlm-r1-rec/99", "99"),
        ("models:/other@champion", "other"),
        ("models/grpo", "not models:/NAME@alias"),
    ],
)
def test_an_unknown_version_is_a_clear_error(registered, uri, fault):
    with pytest.raises(ModelError, match=fault):
        registry.resolve(registered, uri)


def test_aliases_follow_the_files_and_stale_versions_lead_nowhere(tmp_path, params, empty):
    copy_database(empty, tmp_path)
    contract = write_experiment(tmp_path, params)
    register.run(params, tmp_path)
    write_training(tmp_path, "grpo", contract, weights="second")
    with pytest.raises(ModelError, match="checkpoint-1 now holds other weights"):
        registry.resolve(tmp_path, f"models:/{NAME}@champion")
    for step, hits in ((1, 0), (2, 2)):
        for dataset in params.evaluated_datasets:
            write_result(tmp_path, params, contract, "grpo", dataset, step, hits)
    register.run(params, tmp_path)
    client = tracking.configure(tmp_path)
    champion = registry.resolve(tmp_path, f"models:/{NAME}@champion")
    challenger = registry.resolve(tmp_path, f"models:/{NAME}@challenger")
    assert champion == tmp_path / "models/sft/checkpoint-2"
    assert challenger == tmp_path / "models/grpo/checkpoint-2"
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 3
    shutil.rmtree(challenger)
    with pytest.raises(ModelError, match="checkpoint-2 is gone"):
        registry.resolve(tmp_path, f"models:/{NAME}@challenger")
