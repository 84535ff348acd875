"""Preflight checks: each passes on a sound setup and refuses the fault it is written for."""

import json
from importlib import metadata

import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import small_values
from tests.families import write_tiny_qwen3_vl
from tests.training_jobs import job_of, train
from vlm_r1.cli import main as cli
from vlm_r1.config import parse_params
from vlm_r1.errors import ConfigError, ModelError
from vlm_r1.models.families import FAMILIES, QWEN2_5_VL
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.preflight import checks, probes
from vlm_r1.preflight.doctor import diagnose, result_text, sample_of

CHECKS = {
    *("devices", "attention", "precision", "kernels", "optimizer", "rollouts"),
    *("versions", "coordinate_space", "host"),
    *("padding", "pixels", "image tokens", "positions", "weights"),
}


def params_with(**sections):
    values = small_values()
    for section, options in sections.items():
        values.setdefault(section, {}).update(options)
    return parse_params(values, "test")


@pytest.fixture
def loaded(small_root, small_params):
    """Model, processor and sample of the small base, which has no fault."""
    task, base = small_params.task, small_root / "models/base"
    return load_model(base, task), load_processor(base, task), sample_of(small_params, small_root)


@pytest.fixture
def task(small_params):
    return small_params.task


def test_the_small_base_passes_every_check(small_root, small_params):
    results = diagnose(small_params, small_root)
    assert {result.check for result in results} == CHECKS
    assert [result_text(result) for result in results if result.fault] == []


def test_another_family_passes_every_check(tmp_path):
    write_tiny_qwen3_vl(tmp_path / "base")
    params = params_with(task={"coordinate_space": "thousand", "base_model": "base"})
    results = diagnose(params, tmp_path)
    assert {result.check for result in results} == CHECKS
    assert [result_text(result) for result in results if result.fault] == []


def test_a_base_that_cannot_be_loaded_is_reported_after_the_machine_checks(
    tmp_path, small_params, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (*results, base) = diagnose(small_params, tmp_path)
    known = {"devices", "attention", "precision", "kernels", "optimizer", "rollouts"}
    assert {result.check for result in results} == known
    assert base.check == "base"
    assert isinstance(base.fault, ConfigError)


@pytest.mark.parametrize(
    ("version", "model_type", "refused"),
    [
        ("5.3.9", "qwen2_5_vl", False),
        ("5.4.0", "qwen2_5_vl", True),
        ("5.5.3", "qwen2_5_vl", True),
        ("5.5.3", "qwen3_vl", False),
        ("5.5.4", "qwen2_5_vl", False),
    ],
)
def test_versions_with_wrong_positions_are_refused(monkeypatch, version, model_type, refused):
    monkeypatch.setattr(metadata, "version", lambda _: version)
    if refused:
        with pytest.raises(ConfigError, match=f"transformers {version}(.|\n)*>=5.5.4"):
            checks.check_versions(model_type)
    else:
        assert version in checks.check_versions(model_type)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    params = params_with(launch={"device": "cuda", "processes_per_node": 8})
    with pytest.raises(ConfigError, match=r"got 1 CUDA devices\nneed 8"):
        checks.check_devices(params.launch)


def test_flash_attention_without_its_requirements_is_refused():
    params = params_with(task={"attention": "flash_attention_2"})
    with pytest.raises(
        ConfigError, match=r"CUDA device and the package kernels or flash-attn and a 16-bit"
    ):
        checks.check_attention(params.task, params.launch)


def test_zero_in_32_bits_on_gpus_is_refused():
    params = params_with(train={"deepspeed": "zero3"}, launch={"device": "cuda"})
    with pytest.raises(ConfigError, match=r"zero3 with task\.dtype float32(.|\n)*bfloat16"):
        checks.check_precision(params.task, params.train.deepspeed, params.launch)
    on_cpu = params_with(train={"deepspeed": "zero3"}, launch={"device": "cpu"})
    assert checks.check_precision(on_cpu.task, on_cpu.train.deepspeed, on_cpu.launch) == "float32"


def test_kernels_without_package_or_gpu_are_refused():
    with pytest.raises(ConfigError, match=r"use_kernels without(.|\n)*use_kernels: false"):
        checks.check_kernels(params_with(train={"use_kernels": True}).train)


def test_8_bit_adam_without_package_or_gpu_or_under_zero_is_refused():
    params = params_with(train={"optimizer": "adamw_8bit", "deepspeed": "zero3"})
    with pytest.raises(ConfigError, match=r"adamw_8bit without(.|\n)* with train\.deepspeed zero3"):
        checks.check_optimizer(params.train, params.launch)


def test_vllm_in_trls_process_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = diagnose(params_with(grpo={"rollouts": "vllm_colocate"}), tmp_path)
    (rollouts,) = [result for result in results if result.check == "rollouts"]
    assert "got grpo.rollouts: vllm_colocate" in result_text(rollouts)


def test_a_coordinate_space_the_family_was_not_trained_on_is_refused(task):
    with pytest.raises(
        ConfigError, match=r"coordinate_space input with Qwen3-VL(.|\n)*coordinate_space: thousand"
    ):
        checks.check_coordinate_space(task, FAMILIES["qwen3_vl"])


def test_right_padding_is_refused(loaded):
    _, processor, sample = loaded
    processor.tokenizer.padding_side = "right"
    with pytest.raises(ModelError, match="pads on the right"):
        probes.check_padding(processor, sample)


@pytest.mark.parametrize("ignored", ["shortest_edge", "longest_edge"])
def test_a_processor_that_ignores_a_pixel_limit_is_refused(loaded, task, ignored, monkeypatch):
    _, processor, sample = loaded
    size = {"shortest_edge": 3136, "longest_edge": 12_845_056}

    def set_one_limit(image_processor, budget):
        kept = budget.max_pixels if ignored == "shortest_edge" else budget.min_pixels
        name = "longest_edge" if ignored == "shortest_edge" else "shortest_edge"
        image_processor.size = {**size, name: kept}

    family = type(QWEN2_5_VL)(**{**vars(QWEN2_5_VL), "set_budget": set_one_limit})
    with pytest.raises(ModelError, match=r"pixels of an image (above|below) it"):
        probes.check_pixels(processor, family, task, sample)


def test_a_sample_outside_the_pixel_budget_is_refused(loaded, task):
    """The processor was given another budget than the task's."""
    _, processor, sample = loaded
    processor.image_processor.size = {"shortest_edge": 3136, "longest_edge": 3136}
    demanding = task.model_copy(update={"min_pixels": 50_000})
    with pytest.raises(ModelError, match="3136 pixels of the sample"):
        probes.check_pixels(processor, QWEN2_5_VL, demanding, sample)


def test_fewer_image_tokens_than_features_are_refused(loaded):
    model, processor, sample = loaded
    processor.image_processor.merge_size = 3  # of another model
    with pytest.raises(ModelError, match=r"image tokens; .*do not match"):
        probes.check_image_tokens(model, processor, sample)


def test_a_model_with_nan_logits_is_refused(loaded):
    model, processor, sample = loaded
    with torch.no_grad():
        next(model.model.language_model.layers[0].parameters()).fill_(torch.nan)
    with pytest.raises(ModelError, match="not finite"):
        probes.check_image_tokens(model, processor, sample)


def test_rotary_positions_with_several_times_are_refused(loaded, monkeypatch):
    """The fault of transformers 5.4.0 to 5.5.3: a still image gets the positions of a video."""
    model, processor, sample = loaded
    right = model.model.get_rope_index

    def wrong(*args, **kwargs):
        positions, delta = right(*args, **kwargs)
        is_image = kwargs["input_ids"][0] == model.config.image_token_id
        positions[0, 0, is_image] += torch.arange(int(is_image.sum()))
        return positions, delta

    monkeypatch.setattr(model.model, "get_rope_index", wrong)
    with pytest.raises(ModelError, match=r"other rotary positions(.|\n)*5\.4\.0 to 5\.5\.3"):
        probes.check_positions(model, processor, sample)


def test_weights_in_another_dtype_than_the_tasks_are_refused(loaded, task):
    model, *_ = loaded
    model.lm_head.half()
    with pytest.raises(ModelError, match=r"torch\.float16, torch\.float32|torch\.float16"):
        probes.check_weights(model, task)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"task": {"attention": "flash_attention_2"}}, "flash_attention_2 without"),
        ({"task": {"coordinate_space": "thousand"}}, "coordinate_space thousand with Qwen2.5-VL"),
        ({"launch": {"device": "cuda"}}, "got 0 CUDA devices"),
    ],
)
def test_training_refuses_before_it_writes_anything(small_root, tmp_path, sections, message):
    with pytest.raises(ConfigError, match=message):
        train(job_of("sft", params_with(**sections), small_root, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_faults_and_exits_with_1(tmp_path, monkeypatch):
    values = small_values()
    values["task"]["attention"] = "flash_attention_2"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["doctor", "--json"])
    assert done.exit_code == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["check"] for row in rows if not row["ok"]] == ["attention", "base"]
    assert "do: set task.attention: sdpa" in rows[1]["fault"]


def test_without_prepared_data_the_sample_is_a_noise_image(tmp_path, small_params):
    assert isinstance(sample_of(small_params, tmp_path).image, Image.Image)
