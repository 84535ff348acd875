"""The MLflow view of a tiny experiment's files: its tree, its ties, and that it can be rebuilt."""

import json
import shutil

import pytest
from mlflow.exceptions import MlflowException

from tests.tracking_files import (
    copy_database,
    tiny_params,
    write_experiment,
    write_result,
    write_training,
)
from vlm_r1 import paths, tracking
from vlm_r1.errors import ContractError, ModelError, ResultError
from vlm_r1.tracking.evaluations import track_evaluation
from vlm_r1.tracking.live_logging import live_run
from vlm_r1.tracking.runs import pipeline_run_id, read_contract
from vlm_r1.tracking.samples import draw_sample
from vlm_r1.tracking.store import best_effort
from vlm_r1.tracking.trainings import track_training

pytestmark = pytest.mark.usefixtures("no_server")

REPORT = {
    "verdict": {
        "text": "GRPO generalizes better (+50 points).",
        "ood_dataset": "street_test",
        "step": 2,
        "difference": 50.0,
        "ci_low": 1.0,
        "ci_high": 99.0,
        "p_value": 0.04,
        "overall": {
            "gain": {"points": 40.0, "ci_low": 2.0, "ci_high": 78.0, "p_value": 0.03},
            "gain_p_holm": 0.06,
        },
    },
    "gains": [{"dataset": "street_test", "step": 2, "difference": 40.0}],
    "statistics": {
        "gap_differences": [
            {"difference": {"points": -5.0, "ci_low": -9.0, "ci_high": -1.0, "p_value": 0.02}}
        ]
    },
    "curves": [
        {"method": "sft", "dataset": "street_test", "step": 0, "accuracy": 25.0},
        {"method": "sft", "dataset": "street_test", "step": 2, "accuracy": 0.0},
        {"method": "grpo", "dataset": "street_test", "step": 2, "accuracy": 50.0},
    ],
    "compute": {
        "matched": [
            {"dataset": "street_test", "difference": {"points": d}, "gain": {"points": 5.0}}
            for d in (10.0, 20.0)  # the larger budget last
        ]
    },
}


@pytest.fixture(scope="module")
def params():
    return tiny_params()


@pytest.fixture(scope="module")
def contract(tmp_path_factory, params):
    return write_experiment(tmp_path_factory.mktemp("files"), params)


@pytest.fixture(scope="module")
def root(tmp_path_factory, params, empty):
    """A project whose database was rebuilt from its files alone."""
    root = copy_database(empty, tmp_path_factory.mktemp("project"))
    write_experiment(root, params)
    report = root / paths.REPORT
    report.mkdir(parents=True)
    (report / "report.json").write_text(json.dumps(REPORT))
    (report / "report.html").write_text("<p>report</p>")
    tracking.rebuild(root, params)
    return root


@pytest.fixture
def client(root):
    return tracking.configure(root)


def runs_of(client, params, **tags):
    experiment = client.get_experiment_by_name(params.experiment.name)
    query = " and ".join(f"tags.`vlm_r1.{key}` = '{value}'" for key, value in tags.items())
    return client.search_runs([experiment.experiment_id], query)


def child_of(client, params, method):
    (run,) = runs_of(client, params, method=method)
    return run


def models_of(client, params, **filters):
    experiment = client.get_experiment_by_name(params.experiment.name)
    return client.search_logged_models([experiment.experiment_id], **filters)


def history(client, run, key):
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]


def test_one_parent_holds_one_child_per_method(client, params, contract):
    (parent,) = runs_of(client, params, kind="pipeline", contract=contract.digest)
    children = runs_of(client, params, kind="method", contract=contract.digest)
    assert sorted(run.info.run_name for run in children) == ["grpo", "sft"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}


def test_every_checkpoint_is_a_model_that_points_at_its_folder(client, params, root):
    run = child_of(client, params, "grpo")
    models = models_of(client, params, filter_string=f"source_run_id = '{run.info.run_id}'")
    found = {m.name: m.params["checkpoint"] for m in models}
    assert found == {
        "grpo-step-0": "models/base",
        "grpo-step-1": "models/grpo/checkpoint-1",
        "grpo-step-2": "models/grpo/checkpoint-2",
    }
    assert sorted(output.step for output in run.outputs.model_outputs) == [0, 1, 2]
    assert not list((root / ".mlflow").rglob("*.safetensors"))


def test_scores_have_one_name_for_both_methods_over_steps(client, params):
    sft, grpo = (child_of(client, params, method) for method in ("sft", "grpo"))
    assert history(client, sft, "accuracy/street_test") == [(0, 25.0), (1, 25.0), (2, 0.0)]
    assert history(client, grpo, "accuracy/street_test") == [(0, 25.0), (1, 25.0), (2, 50.0)]
    assert history(client, grpo, "mean_iou/studio_val") == [(0, 0.25), (1, 1.0), (2, 0.75)]
    assert history(client, grpo, "parse_rate/studio_val") == [(0, 1.0), (1, 1.0), (2, 1.0)]


def test_models_are_ranked_by_their_scores_on_a_dataset(client, params):
    best, *rest = models_of(
        client,
        params,
        datasets=[{"dataset_name": "street_test", "dataset_digest": ("street_test" * 4)[:36]}],
        order_by=[
            {
                "field_name": "metrics.accuracy/street_test",
                "ascending": False,
                "dataset_name": "street_test",
            }
        ],
    )
    assert (best.name, len(rest)) == ("grpo-step-2", 5)
    assert {m.dataset_name for m in best.metrics} == {"studio_val", "studio_test", "street_test"}


def test_no_model_is_found_under_another_state_of_the_dataset(client, params):
    stale = [{"dataset_name": "street_test", "dataset_digest": "0" * 36}]
    assert models_of(client, params, datasets=stale) == []


def test_training_log_is_replayed_with_its_steps_and_legal_names(client, params):
    run = child_of(client, params, "grpo")
    assert history(client, run, "loss") == [(1, 1.0), (2, 0.5)]
    assert history(client, run, "rewards/iou/mean") == [(1, 0.1), (2, 0.2)]
    assert history(client, run, "odd_key_") == [(1, 1.0), (2, 2.0)]
    assert "step" not in run.data.metrics
    assert run.data.tags["vlm_r1.replayed_from"] == "training_log.jsonl"
    assert run.data.metrics["cost/completions"] == 256


def test_a_child_has_the_settings_and_records_of_its_training(client, params):
    run = child_of(client, params, "grpo")
    assert run.data.params["grpo.beta"] == "0.04"
    assert run.data.params["train.steps"] == "2"
    assert not any(key.startswith(("sft.", "evaluate.")) for key in run.data.params)
    inputs = {d.dataset.name: d.tags[0].value for d in run.inputs.dataset_inputs}
    assert inputs.pop("studio_train") == "training"
    assert inputs == dict.fromkeys(("studio_val", "studio_test", "street_test"), "evaluation")


def test_samples_are_a_table_with_images(client, params):
    run = child_of(client, params, "grpo")
    table = client.load_table(run.info.experiment_id, "samples.json", [run.info.run_id])
    assert list(table["step"]) == [1, 1]
    assert [image["type"] for image in table["drawn_image"]] == ["image", "image"]
    assert list(table["box"]) == [[0.0, 0.0, 28.0, 28.0], None]


def test_the_parent_has_the_reports_numbers_and_verdict(client, params):
    (run,) = runs_of(client, params, kind="pipeline")
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id, "report")}
    assert artifacts == {"report/report.json", "report/report.html"}
    assert run.data.metrics["verdict/difference"] == 50.0
    assert run.data.metrics["verdict/gain_points"] == 40.0
    assert run.data.metrics["verdict/gain_p_holm"] == 0.06
    assert run.data.metrics["verdict/gap_points"] == -5.0
    assert run.data.metrics["last_gain_difference/street_test"] == 40.0
    assert run.data.metrics["last_accuracy/sft.street_test"] == 0.0
    assert run.data.metrics["equal_flops/difference.street_test"] == 20.0
    assert run.data.metrics["equal_flops/gain.street_test"] == 5.0
    assert run.data.tags["mlflow.note.content"].startswith(REPORT["verdict"]["text"])
    assert run.data.params["base_digest"]


def test_a_second_rebuild_adds_nothing(client, root, params):
    def counted():
        runs = runs_of(client, params)
        keys = [(run.info.run_id, key) for run in runs for key in run.data.metrics]
        points = sum(len(client.get_metric_history(*key)) for key in keys)
        return len(runs), len(models_of(client, params)), points

    before = counted()
    tracking.rebuild(root, params)
    assert counted() == before
    assert before[:2] == (3, 6)


def test_a_new_value_of_a_score_is_logged_once(client, root, params, contract):
    file = root / paths.result_file("sft", "studio_val", 2)
    kept = file.read_text()
    write_result(root, params, contract, "sft", "studio_val", 2, hits=0)
    track_evaluation(root, params, "sft")
    track_evaluation(root, params, "sft")
    run = child_of(client, params, "sft")
    assert history(client, run, "accuracy/studio_val")[2:] == [(2, 75.0), (2, 0.0)]
    file.write_text(kept)


def test_evaluation_of_other_checkpoints_is_refused(root, params, contract, empty):
    file = root / paths.checkpoint_dir("sft", 1) / "model.safetensors"
    kept = file.read_text()
    file.write_text("other weights")
    # Its own database: the refusal records the training that is there.
    elsewhere = root.parent / "elsewhere"
    shutil.copytree(root, elsewhere, ignore=shutil.ignore_patterns(".mlflow"))
    file.write_text(kept)
    copy_database(empty, elsewhere)
    with pytest.raises(ModelError, match=r"got results/sft: digests that differ"):
        track_evaluation(elsewhere, params, "sft")


def test_missing_checkpoints_and_results_are_named(root, params, contract):
    with pytest.raises(ModelError, match=r"models/nobody/checkpoint-2: no contract.json"):
        read_contract(root, params, "nobody")
    file = root / paths.result_file("sft", "studio_val", 1)
    kept = file.read_text()
    file.unlink()
    with pytest.raises(ResultError, match=r"studio_val/step-1.json: no such file"):
        track_evaluation(root, params, "sft")
    file.write_text(kept)


def test_a_checkpoint_of_another_contract_is_refused(root, params, contract):
    other = contract.model_copy(update={"dtype": "bfloat16"})
    with pytest.raises(ContractError, match="dtype: 'bfloat16' != 'float32'"):
        track_training(root, params, other, "sft")


@pytest.fixture(scope="module")
def live(tmp_path_factory, empty):
    """An experiment whose trainings are tracked as they happen, one test after the other."""
    root, params = copy_database(empty, tmp_path_factory.mktemp("live")), tiny_params("live")
    return root, params, write_experiment(root, params)


def test_the_trainers_metrics_land_in_the_run_that_gets_the_models(live):
    root, params, contract = live
    with live_run(root, params, contract, "sft") as run:
        run.log({"step": 1, "loss": 2.0, "odd(key)": 1.0})
    assert track_training(root, params, contract, "sft") == run.run_id
    client = tracking.configure(root)
    assert history(client, client.get_run(run.run_id), "loss") == [(1, 2.0)]
    assert client.get_run(run.run_id).data.metrics["odd_key_"] == 1.0
    assert "vlm_r1.replayed_from" not in client.get_run(run.run_id).data.tags
    assert len(models_of(client, params)) == 3


def test_a_failed_training_is_marked_and_never_used(live):
    root, params, contract = live
    with (
        pytest.raises(RuntimeError, match="out of memory"),
        live_run(root, params, contract, "grpo") as failed,
    ):
        raise RuntimeError("out of memory")
    client = tracking.configure(root)
    parent = client.get_run(pipeline_run_id(root, params, contract))
    assert client.get_run(failed.run_id).info.status == "FAILED"
    assert parent.info.status == "FAILED"
    assert track_training(root, params, contract, "grpo") != failed.run_id


def test_a_retrained_method_gets_a_new_child_and_the_old_one_is_found_again(live):
    root, params, contract = live
    first = track_training(root, params, contract, "sft")
    write_training(root, "sft", contract, weights="second")
    with live_run(root, params, contract, "sft") as second:
        pass
    assert track_training(root, params, contract, "sft") == second.run_id != first
    write_training(root, "sft", contract, weights="first")  # as `dvc checkout` would
    assert track_training(root, params, contract, "sft") == first


def test_only_the_first_process_tracks(live, monkeypatch):
    root, params, contract = live
    monkeypatch.setenv("RANK", "1")
    before = len(runs_of(tracking.configure(root), params))
    with live_run(root, params, contract, "sft") as run:
        run.log({"step": 1, "loss": 2.0})
    assert run.run_id is None
    assert len(runs_of(tracking.configure(root), params)) == before


def test_a_run_whose_process_was_killed_is_marked_by_the_next_attempt(live):
    root, params, contract = live
    client = tracking.configure(root)
    begun = live_run(root, params, contract, "sft")
    lost = begun.__enter__()
    with live_run(root, params, contract, "sft") as run:
        assert client.get_run(lost.run_id).info.status == "KILLED"
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_a_run_that_lacks_lines_is_replayed_from_the_file(live, monkeypatch):
    root, params, contract = live

    def refuse(*_):
        raise MlflowException("away")

    write_training(root, "grpo", contract, weights="third")
    with live_run(root, params, contract, "grpo") as run, monkeypatch.context() as patch:
        patch.setattr("vlm_r1.tracking.live_logging.log_lines", refuse)
        run.log({"step": 1, "loss": 1.0})
        run.end()
    client = tracking.configure(root)
    assert client.get_run(run.run_id).info.status == "KILLED"
    replayed = client.get_run(track_training(root, params, contract, "grpo"))
    assert replayed.info.run_id != run.run_id
    assert history(client, replayed, "loss") == [(1, 1.0), (2, 0.5)]


def test_a_failing_mlflow_is_a_warning_and_other_errors_are_raised(live, caplog):
    root, params, _ = live

    def fail():
        raise MlflowException("no disk\nspace")

    assert best_effort(fail) is None
    assert "`vlm-r1 track` sends it: no disk" in caplog.text
    with pytest.raises(ModelError):
        best_effort(read_contract, root, params, "nobody")


def test_boxes_that_leave_the_image_or_are_reversed_are_drawn_within_it(root):
    path = root / "data/drawn/studio_train/0.png"
    image = draw_sample(path, [0, 0, 28, 28], [1e300, 50, 40, -5])
    assert image.getpixel((0, 14)) == (0, 255, 0)
    assert image.getpixel((40, 20)) == (255, 0, 0)
    assert image.getpixel((50, 45)) == (255, 255, 255)


def test_a_training_stage_sends_its_lines_and_records_its_checkpoints(live):
    root, params, contract = live
    write_training(root, "sft", contract, weights="fourth")
    with tracking.training_run(root, params, contract, "sft") as log_line:
        log_line({"step": 1, "loss": 4.0})
    recorded = track_training(root, params, contract, "sft")
    client = tracking.configure(root)
    assert history(client, client.get_run(recorded), "loss") == [(1, 4.0)]
    assert "vlm_r1.replayed_from" not in client.get_run(recorded).data.tags


@pytest.mark.parametrize("failing", ["pipeline_run_id", "track_report"])
def test_a_report_is_written_also_while_mlflow_fails(
    live, contract_in_force, monkeypatch, failing, caplog
):
    root, params, contract = live

    def refuse(*_):
        raise MlflowException("away")

    monkeypatch.setattr(f"vlm_r1.tracking.stages.{failing}", refuse)
    monkeypatch.setattr("vlm_r1.tracking.stages.track_report", refuse)
    with tracking.report_run(root, params) as run_id:
        written = True
    assert written
    expected = None if failing == "pipeline_run_id" else pipeline_run_id(root, params, contract)
    assert run_id == expected
    assert "MLflow fails" in caplog.text


@pytest.fixture
def contract_in_force(live, monkeypatch):
    """The contract of the hand-written files, which have no records to compute it from."""
    monkeypatch.setattr("vlm_r1.tracking.stages.contract_of", lambda *_: live[2])
