"""The stage `evaluate`: cache, kill and restart, several processes, watching a training."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.conftest import ROOT, small_values, untracked_training
from vlm_r1 import paths
from vlm_r1.config import Params, parse_params
from vlm_r1.errors import ConfigError, ContractError, ModelError
from vlm_r1.experiment import contract_of
from vlm_r1.inference import watch
from vlm_r1.inference.engines import transformers_engine
from vlm_r1.inference.evaluator import make_evaluator
from vlm_r1.rec.contract import differences, read_terms
from vlm_r1.rec.results import read_results
from vlm_r1.stages import evaluate

PROGRAM = ROOT / "tests/evaluation_process.py"
RESULT_FILES = 3 * 3  # steps 0, 1, 2; three datasets


@pytest.fixture(autouse=True)
def untracked(monkeypatch):
    """No MLflow: these tests look at files only."""
    monkeypatch.setattr("vlm_r1.tracking.after_evaluation", lambda *_: None)


@pytest.fixture(autouse=True)
def fast_polling(monkeypatch):
    monkeypatch.setattr(watch, "POLL_S", 0.02)


@pytest.fixture(scope="module")
def trained(small_root, small_params, tmp_path_factory) -> Path:
    """A project with data, base and two SFT checkpoints, not yet evaluated."""
    root = tmp_path_factory.mktemp("trained") / "project"
    for name in ("data", "models/base"):
        shutil.copytree(small_root / name, root / name)
    (root / "params.yaml").write_text(yaml.safe_dump(small_values()))
    for step in (1, 2):
        write_checkpoint(root, small_params, root / paths.checkpoint_dir("sft", step), step)
    return root


@pytest.fixture
def project(trained, tmp_path) -> Path:
    """A copy of `trained` that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "project"))


@pytest.fixture(scope="module")
def uninterrupted(trained, small_params, tmp_path_factory) -> dict[str, bytes]:
    """The results of an evaluation in one process that nothing interrupts."""
    root = shutil.copytree(trained, tmp_path_factory.mktemp("uninterrupted") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlm_r1.tracking.after_evaluation", lambda *_: None)
        evaluate.run(small_params, root, "sft")
    assert len(results(root)) == RESULT_FILES
    return results(root)


def write_checkpoint(root: Path, params: Params, folder: Path, step: int) -> None:
    """Writes what a trainer does: the base with other weights, step by step, contract.json last."""
    shutil.copytree(root / "models/base", folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    moved = {name: tensor * (1 + 0.1 * step) for name, tensor in weights.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    part = folder / "contract.part"
    part.write_text(contract_of(params, root).model_dump_json())
    part.replace(folder / "contract.json")


def results(root: Path) -> dict[str, bytes]:
    files = (root / "results").rglob("*.json")
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


@pytest.fixture
def no_models(monkeypatch):
    """Fails the test if a model is loaded, that is, if the cache lacked a completion."""

    def refuse(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(transformers_engine, "load_model", refuse)


@pytest.fixture
def loaded(monkeypatch) -> list[str]:
    """Names of the folders whose models were loaded, in order."""
    names, load = [], transformers_engine.load_model

    def note(path, task):
        names.append(Path(path).name)
        return load(path, task)

    monkeypatch.setattr(transformers_engine, "load_model", note)
    return names


def changed(section: str, **values) -> Params:
    return parse_params(small_values() | {section: small_values()[section] | values}, "changed")


def test_removed_results_come_back_without_a_model(project, small_params, uninterrupted, request):
    evaluate.run(small_params, project, "sft")
    shutil.rmtree(project / "results")
    request.getfixturevalue("no_models")
    evaluate.run(small_params, project, "sft")
    assert results(project) == uninterrupted


def test_checkpoints_answer_differently(uninterrupted):
    """A precondition of the tests below: completions tell the checkpoints apart."""
    said = {
        step: [row["model_output"] for row in json.loads(uninterrupted[name])["results"]]
        for step in (0, 1, 2)
        for name in [f"results/sft/street_test/step-{step}.json"]
    }
    assert said[0] != said[1] != said[2] != said[0]


def test_sampled_repeats_are_in_every_row_and_in_the_cache_apart(
    project, small_params, uninterrupted, request
):
    """Two repeats: two more folders in the cache for each checkpoint and dataset."""
    evaluate.run(small_params, project, "sft")
    folders = len(list((project / paths.COMPLETIONS).iterdir()))
    sampled = changed("evaluate", repeats=2, temperature=1.3)
    evaluate.run(sampled, project, "sft")
    assert len(list((project / paths.COMPLETIONS).iterdir())) == 3 * folders
    found = json.loads(results(project)["results/sft/street_test/step-1.json"])
    assert {len(row["sampled_correct"]) for row in found["results"]} == {2}
    assert found["meta"]["contract"]["repeats"] == "2 at temperature 1.3"
    before = json.loads(uninterrupted["results/sft/street_test/step-1.json"])
    for row, old in zip(found["results"], before["results"], strict=True):
        assert {**old, "sampled_correct": row["sampled_correct"]} == row
    request.getfixturevalue("no_models")
    again = results(project)
    evaluate.run(sampled, project, "sft")
    assert results(project) == again


def test_rows_say_how_long_answers_are_and_whether_they_were_cut_off(uninterrupted, small_params):
    rows = json.loads(uninterrupted["results/sft/street_test/step-1.json"])["results"]
    limit = small_params.evaluate.max_new_tokens
    assert all(0 < row["new_tokens"] <= limit for row in rows)
    assert any(row["cut_off"] for row in rows)
    assert all(row["new_tokens"] == limit for row in rows if row["cut_off"])


def test_another_coordinate_space_reuses_the_completions(project, small_params, request):
    evaluate.run(small_params, project, "sft")
    request.getfixturevalue("no_models")
    for step in (1, 2):  # the coordinate space is in the contract that training writes
        shutil.rmtree(project / paths.checkpoint_dir("sft", step))
    other = changed("task", coordinate_space="thousand")
    other = other.model_copy(update={"train": other.train.model_copy(update={"steps": 0})})
    before = json.loads(results(project)["results/sft/street_test/step-0.json"])
    evaluate.run(other, project, "sft")
    after = json.loads(results(project)["results/sft/street_test/step-0.json"])
    assert after["meta"]["contract"]["coordinate_space"] == "thousand"
    assert [row["model_output"] for row in after["results"]] == [
        row["model_output"] for row in before["results"]
    ]


def test_the_base_is_evaluated_once_for_each_prompt(project, loaded):
    same = changed("task", prompts={"sft": "r1", "grpo": "r1"})
    base_only = same.model_copy(update={"train": same.train.model_copy(update={"steps": 0})})
    evaluate.run(base_only, project, "sft")
    evaluate.run(base_only, project, "grpo")
    assert loaded == ["base"]
    own_prompts = changed("task", prompts={"sft": "r1", "grpo": "plain"})
    evaluate.run(own_prompts.model_copy(update={"train": base_only.train}), project, "grpo")
    assert loaded == ["base", "base"]


def test_a_changed_image_file_is_evaluated_again(project, small_params, loaded):
    evaluate.run(small_params, project, "sft")
    first, second = sorted((project / "data/drawn/studio_val").rglob("*.png"))[:2]
    shutil.copy(second, first)
    loaded.clear()
    evaluate.run(small_params, project, "sft")
    assert loaded == ["base", "checkpoint-1", "checkpoint-2"]


def test_the_log_shows_the_progress(project, small_params, caplog):
    caplog.set_level("INFO", logger="vlm_r1")
    evaluate.run(small_params, project, "sft")
    lines = [record.getMessage() for record in caplog.records]
    told = [line.split("  ") for line in lines if line.startswith("sft step 1  street_test  ")]
    assert len(told) == 3  # batches
    assert told[-1][2] == "12 new of 12 rows"
    assert all(words[3].endswith(" rows/s") for words in told)
    assert [line for line in lines if line.startswith("sft step 2  accuracy: studio_val ")]


def test_results_after_kills_and_restarts_are_the_same_bytes(project, uninterrupted):
    for lines in (1, 9, 40):  # of 108 rows
        process = start(project)
        wait_for(lambda least=lines: len(cached_lines(project)) >= least, process)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (project / "results/sft").exists()
    assert 40 <= len(cached_lines(project)) < 108
    assert start(project).wait() == 0
    assert results(project) == uninterrupted


def test_two_processes_write_the_same_bytes_as_one(project, uninterrupted):
    together = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = start(project, *together)
    assert process.wait() == 0, (project / "log").read_text()[-3000:]
    assert results(project) == uninterrupted
    ranks = {file.name for file in (project / paths.COMPLETIONS).rglob("rank-*.jsonl")}
    assert ranks == {"rank-0.jsonl", "rank-1.jsonl"}


def start(project: Path, *launcher: str) -> subprocess.Popen:
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    with (project / "log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, *launcher, str(PROGRAM), str(project), "sft"],
            env=os.environ | environment,
            stdout=log,
            stderr=log,
        )


def cached_lines(project: Path) -> list[str]:
    files = (project / paths.COMPLETIONS).rglob("rank-*.jsonl")
    return [line for file in files for line in file.read_text().splitlines()]


def wait_for(condition, process: subprocess.Popen, patience_s: float = 300) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert process.poll() is None, "the process ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_broken_checkpoint_is_refused_before_any_is_evaluated(project, small_params, no_models):
    file = project / paths.checkpoint_dir("sft", 2) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"checkpoint-2: model\.safetensors cannot be read"):
        evaluate.run(small_params, project, "sft")
    assert not (project / "results").exists()
    assert not (project / paths.COMPLETIONS).exists()


def test_a_checkpoint_that_does_not_load_leaves_the_old_results(
    project, small_params, uninterrupted, monkeypatch
):
    evaluate.run(small_params, project, "sft")
    shutil.rmtree(project / paths.COMPLETIONS)
    config = project / paths.checkpoint_dir("sft", 2) / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": ', '"vocab_size": 1'))
    with pytest.raises(ModelError, match="checkpoint-2"):
        evaluate.run(small_params, project, "sft")
    assert results(project) == uninterrupted
    assert not (project / "results/sft.part").exists()


class Trainer(threading.Thread):
    """Writes checkpoints into sft.part one after the other, then renames it, as training does."""

    def __init__(self, project: Path, params: Params) -> None:
        super().__init__(daemon=True)
        self.project, self.params = project, params
        self.part = project / "models/sft.part"
        self.may_continue = threading.Event()

    def run(self) -> None:
        for step in self.params.train.step_grid[1:]:
            write_checkpoint(self.project, self.params, self.part / f"checkpoint-{step}", step)
            if step == 1:
                self.may_continue.wait()
        self.part.rename(self.project / "models/sft")


def test_checkpoints_are_evaluated_while_training_continues(
    project, small_params, uninterrupted, loaded, request, caplog
):
    caplog.set_level("INFO", logger="vlm_r1")
    shutil.rmtree(project / "models/sft")
    trainer = Trainer(project, small_params)
    watcher = threading.Thread(target=watch.run, args=(small_params, project, "sft", "cpu", 120))
    watcher.start()
    wait_until(lambda: loaded == ["base"])
    trainer.start()
    wait_until(lambda: any("step 1  accuracy" in r.getMessage() for r in caplog.records))
    assert loaded == ["base", "checkpoint-1"]
    trainer.may_continue.set()
    watcher.join(timeout=120)
    assert not watcher.is_alive()
    assert loaded == ["base", "checkpoint-1", "checkpoint-2"]
    trainer.join()
    request.getfixturevalue("no_models")
    evaluate.run(small_params, project, "sft")
    assert results(project) == uninterrupted


def wait_until(condition, patience_s: float = 120) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_while_training_runs_checkpoints_of_an_earlier_training_are_ignored(project):
    assert watch.find_checkpoint(project, "sft", 1) == Path("models/sft/checkpoint-1")
    growing = project / "models/sft.part/checkpoint-1"
    growing.mkdir(parents=True)
    assert watch.find_checkpoint(project, "sft", 1) is None
    (growing / "contract.json").write_text("{}")
    assert watch.find_checkpoint(project, "sft", 1) == Path("models/sft.part/checkpoint-1")


def test_a_checkpoint_moved_at_the_end_of_training_is_found_again(
    project, small_params, uninterrupted, monkeypatch, request
):
    (project / "models/sft").rename(project / "models/sft.part")
    load = transformers_engine.load_model

    def load_late(path, task):
        if (project / "models/sft.part").exists() and Path(path).name == "checkpoint-1":
            (project / "models/sft.part").rename(project / "models/sft")
        return load(path, task)

    monkeypatch.setattr(transformers_engine, "load_model", load_late)
    watch.run(small_params, project, "sft", "cpu", 60)
    request.getfixturevalue("no_models")
    evaluate.run(small_params, project, "sft")
    assert results(project) == uninterrupted


def test_waiting_for_a_checkpoint_ends_after_patience_s(project, small_params):
    shutil.rmtree(project / paths.checkpoint_dir("sft", 2))
    with pytest.raises(ModelError, match=r"no models/sft/checkpoint-2 after 0\.1 s"):
        watch.run(small_params, project, "sft", "cpu", 0.1)


def test_waiting_ends_when_training_ends_without_the_checkpoint(project, small_params):
    (project / "models/sft").rename(project / "models/sft.part")
    shutil.rmtree(project / "models/sft.part/checkpoint-2")
    wait = threading.Timer(8, shutil.rmtree, [project / "models/sft.part"])
    wait.start()
    with pytest.raises(ModelError, match=r"no models/sft/checkpoint-2 and training has ended"):
        watch.run(small_params, project, "sft", "cpu", 300)


def test_a_watched_checkpoint_of_another_contract_is_refused(project, no_models):
    other = changed("experiment", seed=7)
    with pytest.raises(ContractError, match="seed: 42 != 7"):
        watch._evaluate_unless_moved(
            make_evaluator(other, project, "sft"), 1, Path("models/sft/checkpoint-1")
        )


def test_a_run_with_another_seed_has_its_own_checkpoints_and_results(small_root, tmp_path):
    root = tmp_path / "project"
    for name in ("data", "models/base"):
        shutil.copytree(small_root / name, root / name)
    params = changed("experiment", seeds=[7])
    for seed in (None, 7):
        untracked_training(params, root, "sft", seed)
    evaluate.run(params, root, "sft", 7)
    terms = {run: read_terms(root, paths.checkpoint_dir(run, 2)) for run in ("sft", "sft-7")}
    assert differences(*terms.values()) == ["seed: 42 != 7"]
    weights = [load_file(root / f"models/{run}/checkpoint-2/model.safetensors") for run in terms]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert len(results(root)) == RESULT_FILES
    assert all(name.startswith("results/sft-7/") for name in results(root))
    result = read_results(root / paths.result_file("sft-7", "studio_test", 2))
    assert result.meta["contract"]["seed"] == 7
    with pytest.raises(ConfigError, match="seed 8"):
        evaluate.run(params, root, "sft", 8)
