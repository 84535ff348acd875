"""Disk of a training: planned, checked before it starts, and what is really written."""

import os
import shutil
from collections import namedtuple

import pytest

from tests.conftest import ROOT, small_values
from tests.training_jobs import job_of, train
from vlm_r1.config import load_params, parse_params, profile_file
from vlm_r1.errors import ConfigError
from vlm_r1.preflight import disk
from vlm_r1.preflight.disk import (
    OTHER_BYTES,
    CheckpointSize,
    check_disk,
    checkpoint_size,
    copies_outputs,
    plan_disk,
)
from vlm_r1.preflight.memory import GIB

N = 3_754_622_976  # parameters of Qwen2.5-VL-3B
Usage = namedtuple("Usage", "total used free")


def profile(name, **train):
    params = load_params(profile_file(name, ROOT / "profiles"))
    return params.model_copy(update={"train": params.train.model_copy(update=train)})


def sizes(params, trained=N):
    size = checkpoint_size(params, N, trained)
    return size.weights - OTHER_BYTES, size.state


def test_a_checkpoint_has_weights_and_adamw_s_state():
    """16-bit weights; two moments and ZeRO's 32-bit weights for each parameter that is trained."""
    zero3, zero2 = profile("vlm-r1-mar2025"), profile("vlm-r1-mar2025", deepspeed="zero2")
    alone = profile("vlm-r1-mar2025", deepspeed=None)
    assert sizes(zero3) == (2 * N, 12 * N)
    assert sizes(zero2) == (2 * N, 12 * N + 2 * N + OTHER_BYTES)  # it saves the weights again
    assert sizes(alone) == (4 * N, 8 * N)
    assert sizes(profile("lora-1gpu"), trained=1000) == (4 * 1000, 8 * 1000)
    assert sizes(profile("vlm-r1-mar2025", save_only_model=True)) == (2 * N, 0)


def test_an_experiment_keeps_all_weights_and_two_states_while_it_saves(tmp_path):
    params = profile("vlm-r1-mar2025")
    plan = plan_disk(params, tmp_path, N, N)
    assert plan.models == 2 * 6 * plan.checkpoint.weights  # methods, steps 100 to 600
    assert plan.peak == plan.models + 2 * plan.checkpoint.state
    assert plan.results is None
    assert plan.peak / GIB < 170  # with the state of every checkpoint it were 12 x 49 = 590


def test_results_are_counted_once_data_is_prepared(small_root, small_params):
    plan = plan_disk(small_params, small_root, 1, 1)
    rows = 3 * 12  # datasets, records of each
    answer = disk.ROW_BYTES + disk.TOKEN_BYTES * 8
    assert plan.results == rows * 2 * 3 * answer  # methods, steps 0 to 2


@pytest.fixture
def project(tmp_path):
    """A project of DVC with nothing in it."""
    (tmp_path / ".dvc").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("config", "copies"),
    [
        ("", True),  # reflink, copy: these tests' filesystem may have reflinks
        ("[cache]\n    type = copy\n", True),
        ("[cache]\n    type = reflink,hardlink,copy\n", False),
        ("[cache]\n    type = symlink\n", False),
    ],
)
def test_dvc_copies_where_it_may_not_or_cannot_link(project, monkeypatch, config, copies):
    monkeypatch.setattr(disk, "_reflink", refuse)
    (project / ".dvc/config").write_text("[core]\n    analytics = false\n" + config)
    assert copies_outputs(project) is copies
    assert sorted(file.name for file in project.rglob("*")) == [".dvc", "config"]


def refuse(*_):
    raise OSError("another filesystem")


def test_a_cache_on_another_filesystem_is_a_copy_and_local_settings_count(project, monkeypatch):
    (project / ".dvc/config").write_text("[cache]\n    type = reflink,hardlink,copy\n")
    monkeypatch.setattr(disk, "_reflink", refuse)
    monkeypatch.setattr(os, "link", refuse)
    assert copies_outputs(project) is True
    (project / ".dvc/config.local").write_text("[cache]\n    type = symlink\n")
    assert copies_outputs(project) is False


def test_the_committed_config_links():
    assert copies_outputs(ROOT) is False


def check(params, root, folder, free_gib, has_state=False):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, int(free_gib * GIB)))
        size = CheckpointSize(weights=GIB, state=3 * GIB)
        return check_disk(params, "sft", root, folder, size, has_state)


def test_a_training_that_does_not_fit_is_refused_before_it_starts(tmp_path):
    values = small_values()
    values["train"] |= {"steps": 4, "checkpoints": 1}
    params = parse_params(values, "four")
    folder = tmp_path / "sft.part"
    folder.mkdir()
    assert check(params, tmp_path, folder, 10) == "10.0 GiB needed, 10.0 GiB free"
    with pytest.raises(ConfigError, match=r"got 9\.90 GiB free(.|\n)*need 10\.00 GiB: 4 check"):
        check(params, tmp_path, folder, 9.9)
    for step in (1, 2, 3):  # an earlier attempt: one checkpoint and one state are left to write
        (folder / f"checkpoint-{step}").mkdir()
        (folder / f"checkpoint-{step}/contract.json").touch()
    assert check(params, tmp_path, folder, 4, has_state=True).startswith("4.0 GiB needed")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[cache]\n    type = copy\n")
    with pytest.raises(ConfigError, match=r"1 checkpoints(.|\n)*4\.00 for DVC's copy"):
        check(params, tmp_path, folder, 7.9, has_state=True)


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_training_refuses_a_full_disk(small_root, small_params, tmp_path, monkeypatch, method):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 10_000))
    with pytest.raises(ConfigError, match=r"0\.00 GiB free for out\.part"):
        train(job_of(method, small_params, small_root, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_planned_size_is_that_of_the_files(small_root, small_params, tmp_path, monkeypatch):
    seen = {}

    def measure(folder, every):
        files = [file for file in (folder / "checkpoint-1").iterdir() if file.is_file()]
        seen.update({file.name: file.stat().st_size for file in files})

    monkeypatch.setattr("vlm_r1.training.callbacks.keep_newest_state", measure)
    job = job_of("sft", small_params, small_root, tmp_path / "out")
    train(job)
    total = sum(seen.values())
    parameters = seen["model.safetensors"] // 4
    size = checkpoint_size(small_params, parameters, parameters)
    assert size.state == pytest.approx(seen["optimizer.pt"], rel=0.02)
    assert size.weights - OTHER_BYTES == pytest.approx(seen["model.safetensors"], rel=0.02)
    assert total <= size.weights + size.state
