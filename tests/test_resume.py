"""A training that is killed and started again ends as one that nothing interrupts."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.conftest import ROOT, small_values, untracked_training
from vlm_r1.config import Params, parse_params
from vlm_r1.errors import ModelError
from vlm_r1.files import part_of
from vlm_r1.training import resume
from vlm_r1.training.arguments import rollout_steps
from vlm_r1.training.configuration import configuration_of
from vlm_r1.training.grpo import grpo_arguments
from vlm_r1.training.sft import sft_arguments

STEPS, CHECKPOINTS = 6, [2, 4]  # and the last step
TIMES = ("step_time",)  # the only logged quantity that is a duration


def values(**grpo) -> dict:
    """Six steps, checkpoints at steps 2, 4 and 6, a log line every fourth."""
    changed = small_values()
    changed["train"] |= {"steps": STEPS, "checkpoints": CHECKPOINTS, "log_every": 4}
    changed["grpo"] |= {"micro_batch": 4, "learning_rate": 1e-3, "sample_every": 1}
    changed["grpo"]["rewards"] = {"length": 1.0}  # differs within a group, also untrained
    changed["grpo"] |= grpo
    return changed


@pytest.fixture(scope="module")
def params() -> Params:
    return parse_params(values(), "resume")


@pytest.fixture(scope="module")
def course(small_root, params, tmp_path_factory) -> Path:
    """A project with both methods trained in one go, and models/<method>-at-<step>: the work folder
    as it was at each save, just before the state of older checkpoints is removed."""
    root = project(small_root, tmp_path_factory.mktemp("uninterrupted"), values())
    for method in ("sft", "grpo"):
        train_and_copy(params, root, method)
    return root


def train_and_copy(params: Params, root: Path, method: str) -> None:
    """Train in one go; at each save copy the work folder to models/<method>-at-<step>."""

    def copy(folder: Path, every: int) -> None:
        newest = max(resume.step_of(f) for f in folder.glob("checkpoint-*"))
        shutil.copytree(folder, folder.with_name(f"{method}-at-{newest}"))
        resume.keep_newest_state(folder, every)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlm_r1.training.callbacks.keep_newest_state", copy)
        untracked_training(params, root, method)


@pytest.fixture(scope="module")
def uninterrupted(course) -> dict[str, Path]:
    """models/<method> of a training in one go."""
    return {method: course / "models" / method for method in ("sft", "grpo")}


def project(small_root: Path, folder: Path, settings: dict) -> Path:
    """Data and base, with params.yaml for a process of its own."""
    shutil.copytree(small_root / "data", folder / "data")
    shutil.copytree(small_root / "models/base", folder / "models/base")
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    return folder


def curve(folder: Path) -> list[dict]:
    lines = resume.read_log(folder / resume.LOG)
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def assert_same(folder: Path, expected: Path, steps: Iterable[int] = (*CHECKPOINTS, STEPS)) -> None:
    """Equal files, equal weights to the last bit, equal curve and samples."""
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))
    assert names == sorted(str(file.relative_to(expected)) for file in expected.rglob("*"))
    for step in steps:
        ours, theirs = (
            load_file(f / f"checkpoint-{step}/model.safetensors") for f in (folder, expected)
        )
        assert [n for n in theirs if not torch.equal(ours[n], theirs[n])] == []
    assert curve(folder) == curve(expected)
    for file in expected.glob("samples/*.json"):
        assert (folder / "samples" / file.name).read_text() == file.read_text()
    assert costs(folder) == costs(expected)


def costs(folder: Path) -> list[dict]:
    """The cost of the whole training and up to each checkpoint, without their seconds."""
    whole = json.loads((folder / "cost.json").read_text())
    parts = whole.pop("checkpoints")
    for part in parts:
        file = folder / f"checkpoint-{part['step']}/cost.json"
        assert json.loads(file.read_text()) == part
    seconds = [part.pop("seconds") for part in parts]
    assert seconds == sorted(seconds)
    return [{**whole, "seconds": 0}, *parts]


def test_the_curve_has_a_line_at_every_checkpoint_and_weights_move(uninterrupted, small_root):
    before = load_file(small_root / "models/base/model.safetensors")
    for folder in uninterrupted.values():
        assert [line["step"] for line in curve(folder)] == [1, 2, 4, 6]
        after = load_file(folder / "checkpoint-6/model.safetensors")
        assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_killed_at_a_random_moment_it_ends_the_same(
    small_root, tmp_path, params, uninterrupted, method, caplog
):
    root = project(small_root, tmp_path, values())
    step = kill_at_a_random_moment(root, method)
    growing = root / f"models/{method}.part"
    spent_s = float((growing / "seconds").read_text())
    caplog.set_level("INFO", logger="vlm_r1")
    untracked_training(params, root, method)
    told = [record.getMessage() for record in caplog.records]
    if step >= CHECKPOINTS[1]:
        assert any(line.startswith(f"{method}.part: goes on from checkpoint-") for line in told)
    assert_same(root / "models" / method, uninterrupted[method])
    assert json.loads((root / f"models/{method}/cost.json").read_text())["seconds"] > spent_s


def kill_at_a_random_moment(root: Path, method: str) -> int:
    """The logged step after which the training was killed, at most `wait_s` later.

    On a fast machine a moment may come after the end: then another one is drawn, half as late.
    """
    growing, wait_s, moment = root / f"models/{method}.part", 0.4, random.Random()
    while True:
        step, process = moment.choice([1, 2, 4]), start(root, method)
        wait_for(lambda: step in logged(growing) or process.poll() is not None)  # noqa: B023
        time.sleep(moment.uniform(0, wait_s))
        process.kill()
        if process.wait() == -signal.SIGKILL and not (root / "models" / method).exists():
            return step
        assert process.returncode in (0, -signal.SIGKILL), (root / "log").read_text()
        assert wait_s > 0.001, "ten trainings ended before they could be killed"
        shutil.rmtree(root / "models" / method)
        wait_s /= 2


def start(root: Path, method: str) -> subprocess.Popen:
    program = [sys.executable, str(ROOT / "tests/resume_process.py"), str(root), method]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    with (root / "log").open("w") as log:
        return subprocess.Popen(program, env=os.environ | environment, stdout=log, stderr=log)


def wait_for(true, patience_s: float = 300) -> None:
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def logged(growing: Path) -> list[int]:
    return [line["step"] for line in resume.read_log(growing / resume.LOG)]


def leave_behind(course: Path, root: Path, method: str) -> Path:
    """What a training leaves that is killed while it writes its last checkpoint."""
    growing = killed_at(course, root, method, 6)
    (growing / "checkpoint-6/contract.json").unlink()
    state = growing / "checkpoint-6/optimizer.pt"
    state.write_bytes(state.read_bytes()[:100])
    with (growing / resume.LOG).open("a") as stream:
        stream.write('{"step": 6, "lo')
    return growing


def killed_at(course: Path, root: Path, method: str, step: int) -> Path:
    """What is left after a kill between the save at `step` and the removal of older state."""
    growing = part_of(root / "models" / method)
    shutil.copytree(course / f"models/{method}-at-{step}", growing)
    return growing


def with_state(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.glob("checkpoint-*") if resume.has_state(f))


def test_only_the_newest_checkpoint_has_state_and_a_finished_training_none(course, tmp_path):
    for method in ("sft", "grpo"):
        for step, before in ((2, [2]), (4, [2, 4]), (6, [4, 6])):
            growing = killed_at(course, tmp_path / str(step), method, step)
            assert with_state(growing) == [f"checkpoint-{number}" for number in before]
            resume.keep_newest_state(growing, every=1)
            assert with_state(growing) == [f"checkpoint-{step}"]
        finished = course / "models" / method
        for step in (*CHECKPOINTS, STEPS):
            names = {file.name for file in (finished / f"checkpoint-{step}").iterdir()}
            assert {"model.safetensors", "config.json", "contract.json", "cost.json"} <= names
            assert not [name for name in names if name.startswith(("optim", "sched", "rng"))]
        assert not (finished / resume.LOCK).exists()


@pytest.mark.parametrize("removed", [(), ("optimizer.pt",), ("optimizer.pt", "scheduler.pt")])
def test_killed_between_a_save_and_the_removal_of_older_state_it_ends_the_same(
    small_root, tmp_path, params, course, uninterrupted, removed, caplog
):
    root = project(small_root, tmp_path, values())
    growing = killed_at(course, root, "sft", 4)
    for name in removed:
        (growing / "checkpoint-2" / name).unlink()
    caplog.set_level("INFO", logger="vlm_r1")
    untracked_training(params, root, "sft")
    assert "sft.part: goes on from checkpoint-4" in caplog.text
    assert_same(root / "models/sft", uninterrupted["sft"])


def test_the_state_of_deepspeed_is_removed_with_its_folders_and_pointer_first(tmp_path):
    for step in (2, 4, 5):
        share = tmp_path / f"checkpoint-{step}/global_step{step}"
        share.mkdir(parents=True)
        for file in ("contract.json", "model.safetensors", "latest", "zero_to_fp32.py"):
            (share.parent / file).touch()
        for rank in range(2):
            (share / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
            (share.parent / f"rng_state_{rank}.pth").touch()
    (tmp_path / "checkpoint-5/contract.json").unlink()  # half-written
    assert resume._state_of(tmp_path / "checkpoint-2")[0].name == "latest"
    resume.keep_newest_state(tmp_path, every=2)
    for step, names in ((2, {"contract.json", "model.safetensors"}), (4, None)):
        found = {file.name for file in (tmp_path / f"checkpoint-{step}").iterdir()}
        assert names is None or found == names
    assert with_state(tmp_path) == ["checkpoint-4"]


def test_killed_before_its_folder_has_its_name_a_finished_training_keeps_its_state(
    course, tmp_path, monkeypatch
):
    def killed(*_):
        raise KeyboardInterrupt

    growing = killed_at(course, tmp_path, "sft", 6)
    monkeypatch.setattr(resume, "put_in_place", killed)
    with pytest.raises(KeyboardInterrupt):
        resume.finish(growing, tmp_path / "models/sft")
    assert resume.newest_checkpoint(growing, every=1).name == "checkpoint-6"


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_half_written_checkpoint_is_set_aside_and_named(
    small_root, tmp_path, params, course, uninterrupted, method, caplog
):
    root = project(small_root, tmp_path, values())
    leave_behind(course, root, method)
    caplog.set_level("INFO", logger="vlm_r1")
    untracked_training(params, root, method)
    told = [record.getMessage() for record in caplog.records]
    assert "checkpoint-6: half-written, set aside as checkpoint-6.incomplete" in told
    assert f"{method}.part: goes on from checkpoint-4" in told
    assert_same(root / "models" / method, uninterrupted[method])


def test_killed_after_its_last_checkpoint_it_only_ends(
    small_root, tmp_path, params, course, uninterrupted, caplog
):
    for method in ("sft", "grpo"):
        root = project(small_root, tmp_path / method, values())
        killed_at(course, root, method, 6)
        untracked_training(params, root, method)
        assert_same(root / "models" / method, uninterrupted[method])


def test_under_another_configuration_it_begins_anew_and_the_old_one_waits(
    tmp_path, course, params, small_root, caplog
):
    growing = leave_behind(course, tmp_path, "grpo")
    old = json.loads((growing / resume.CONFIGURATION).read_text())
    new = {**old, "grpo": {**old["grpo"], "beta": 0.5}}
    caplog.set_level("INFO", logger="vlm_r1")
    assert resume.enter(growing, new, every=1) is None
    assert [file.name for file in growing.iterdir() if file.is_dir()] == []
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("grpo.part: of another configuration, set aside as ")
    assert told.endswith("(grpo.beta: 0.04 != 0.5)")
    back = resume.enter(growing, old, every=1)
    assert back == growing / "checkpoint-4"
    assert json.loads((growing / resume.CONFIGURATION).read_text()) == old


def test_every_knob_that_shapes_a_training_is_in_its_configuration(small_root, params, tmp_path):
    from vlm_r1.experiment import contract_of

    (tmp_path / "own.py").write_text("def reward(**sent): ...")

    def configuration(settings: dict) -> dict:
        changed = parse_params(settings, "changed")
        own = {name: tmp_path / "own.py" for name in changed.grpo.rewards if ":" in name}
        return configuration_of(changed, contract_of(changed, small_root), "grpo", own)

    before = configuration(values())
    for section, knob, value in [
        ("grpo", "learning_rate", 1e-5),
        ("grpo", "rewards", {"iou": 1.0}),
        ("grpo", "rewards", {"own.py:reward": 1.0}),
        ("train", "max_grad_norm", 2.0),
        ("experiment", "seed", 7),
        ("task", "max_pixels", 4000),
    ]:
        settings = values()
        settings[section][knob] = value
        assert configuration(settings) != before, knob
    settings = values(rewards={"own.py:reward": 1.0})
    files = tmp_path / "own.py", tmp_path / "zero.json"
    settings["train"]["deepspeed"] = str(files[1])
    for file in files:
        file.write_text('{"steps_per_print": 1}')
    for file in files:
        first = configuration(settings)
        file.write_text('{"steps_per_print": 2}')
        assert configuration(settings) != first, "a file's content counts too"
    kept = values()
    kept["train"]["save_only_model"] = True
    assert configuration(kept) == before


def test_two_trainings_do_not_share_a_folder(tmp_path):
    program = f"""
import time
from pathlib import Path
from vlm_r1.training.resume import hold
with hold(Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as other:
        while "held" not in other.stdout.readline():
            assert other.poll() is None
        with pytest.raises(ModelError, match="another process trains into it"):
            resume.enter(tmp_path, {}, every=1)
        other.kill()
    assert resume.enter(tmp_path, {}, every=1) is None


def test_weights_alone_are_not_resumed_from(course, tmp_path, caplog):
    growing = leave_behind(course, tmp_path, "sft")
    configuration = json.loads((growing / resume.CONFIGURATION).read_text())
    for file in growing.glob("checkpoint-*/optimizer.pt"):
        file.unlink()
    caplog.set_level("INFO", logger="vlm_r1")
    assert resume.enter(growing, configuration, every=1) is None
    assert "checkpoint-2: cannot be resumed from, removed" in caplog.text
    assert (growing / resume.LOG).read_text() == ""


def test_within_a_rollout_nothing_is_resumed(course, tmp_path):
    growing = leave_behind(course, tmp_path, "grpo")
    configuration = json.loads((growing / resume.CONFIGURATION).read_text())
    assert resume.newest_checkpoint(growing, every=1).name == "checkpoint-4"
    assert resume.enter(growing, configuration, every=3) is None


def test_a_rollout_that_lasts_two_steps_is_resumed_at_its_beginning(small_root, tmp_path, caplog):
    settings = values(num_iterations=2)
    settings["train"] |= {"steps": 4, "checkpoints": 1}
    whole = project(small_root, tmp_path / "whole", settings)
    killed = project(small_root, tmp_path / "killed", settings)
    changed = parse_params(settings, "two iterations")
    train_and_copy(changed, whole, "grpo")
    growing = killed_at(whole, killed, "grpo", 3)
    resume.keep_newest_state(growing, every=2)
    assert with_state(growing) == ["checkpoint-2"]  # a rollout of two steps begins there
    (growing / "samples/step-2.json").write_text("half")
    caplog.set_level("INFO", logger="vlm_r1")
    untracked_training(changed, killed, "grpo")
    assert "grpo.part: goes on from checkpoint-2" in caplog.text
    assert "checkpoint-3: cannot be resumed from, removed" in caplog.text
    assert_same(killed / "models/grpo", whole / "models/grpo", range(1, 5))


def test_a_rollout_is_as_long_as_its_iterations(params, tmp_path):
    assert rollout_steps(sft_arguments(params, tmp_path)) == 1
    arguments = grpo_arguments(params, tmp_path)
    assert arguments.gradient_accumulation_steps == 2
    assert rollout_steps(arguments) == 1
    arguments.num_iterations = 3
    assert rollout_steps(arguments) == 3
    arguments.steps_per_generation = 3
    assert rollout_steps(arguments) == 9
    arguments.steps_per_generation = 1  # two rollouts a step
    arguments.num_iterations = 1
    assert rollout_steps(arguments) == 1
