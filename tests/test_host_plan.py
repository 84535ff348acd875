"""Memory of a node's host: what its processes load, and what ZeRO keeps there."""

from types import SimpleNamespace

import psutil
import pytest

from tests.conftest import ROOT
from tests.training_jobs import job_of, train
from vlm_r1.config import load_params, profile_file
from vlm_r1.errors import ConfigError
from vlm_r1.preflight import host
from vlm_r1.preflight.host import PROCESS_BYTES, check_host, parameters_at, plan_host
from vlm_r1.preflight.memory import GIB

N = 1_000_000


def params_of(launch=None, **train):
    params = load_params(profile_file("vlm-r1-mar2025", ROOT / "profiles"))
    return params.model_copy(
        update={
            "train": params.train.model_copy(update=train),
            "launch": params.launch.model_copy(update=launch or {}),
        }
    )


@pytest.mark.parametrize(
    ("deepspeed", "method", "models"),
    [
        ("zero3", "sft", 8 * 2 * N),
        ("zero3", "grpo", 9 * 2 * N),  # the reference is read by one process and divided
        ("zero2", "grpo", 16 * 2 * N),  # by every one, while its policy waits for DeepSpeed
        (None, "grpo", 8 * 4 * N),  # the policy is on its GPU by then
    ],
)
def test_every_process_of_a_node_loads_the_whole_model(deepspeed, method, models):
    plan = plan_host(params_of(deepspeed=deepspeed), method, N, N)
    assert (plan.models, plan.offloaded) == (models, 0)
    assert plan.peak == models + 8 * PROCESS_BYTES


def test_what_zero_offloads_is_divided_among_nodes():
    one = plan_host(params_of(deepspeed="zero3_offload"), "sft", N, N)
    assert one.offloaded == 2 * N + (12 + 2) * N
    two = {"nodes": 2, "endpoint": "a:1"}
    assert plan_host(params_of(two, deepspeed="zero3_offload"), "sft", N, N).offloaded == (
        one.offloaded // 2
    )


def test_with_adapters_there_is_no_second_model():
    lora = load_params(profile_file("lora-1gpu", ROOT / "profiles"))
    assert plan_host(lora, "grpo", N, 0).models == 2 * N


@pytest.mark.parametrize(("billions", "refused"), [(3.8, False), (33.5, False), (73.4, True)])
def test_a_model_that_8_processes_cannot_load_into_a_terabyte_is_refused(
    tmp_path, monkeypatch, billions, refused
):
    monkeypatch.setattr(host, "parameters_at", lambda _: int(billions * 1e9))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1024 * GIB))
    if not refused:
        assert check_host(params_of(), "sft", tmp_path).endswith("1024 GiB in all")
        return
    with pytest.raises(ConfigError, match=r"1024 GiB(.|\n)*73\.4 billion parameters in 8 proc"):
        check_host(params_of(), "sft", tmp_path)


def test_parameters_are_counted_from_headers(small_root, small_params):
    from vlm_r1.models.loading import load_model

    folder = small_root / "models/base"
    model = load_model(folder, small_params.task)
    assert parameters_at(folder) == sum(p.numel() for p in model.parameters())


def test_a_training_refuses_before_it_loads_the_model(
    small_root, small_params, tmp_path, monkeypatch
):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=GIB // 2))
    monkeypatch.setattr("vlm_r1.training.run.load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(ConfigError, match="0 GiB of memory on this host"):
        train(job_of("sft", small_params, small_root, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []
