"""Frozen parts and LoRA: which parameters change, and adapters that load and generate."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file

from tests.conftest import LORA, small_values
from tests.families import write_tiny_qwen3_vl
from tests.training_jobs import job_of, train, weights
from vlm_r1.config import parse_params
from vlm_r1.data.images import open_image
from vlm_r1.errors import ConfigError
from vlm_r1.inference.generate import generate_completions
from vlm_r1.inference.questions import Question
from vlm_r1.models.digest import checkpoint_digest
from vlm_r1.models.families import QWEN2_5_VL, family_of
from vlm_r1.models.loading import chat_text, load_model, load_processor
from vlm_r1.models.tiny.model import build_model, build_processor, build_tokenizer
from vlm_r1.models.trainable import freeze, lora_config, stop_gradients_in_frozen_tower
from vlm_r1.rec import prompts
from vlm_r1.rec.rewards import REWARDS

LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def params_with(method="sft", **train_options):
    values = small_values()
    values["train"] |= train_options
    values[method]["learning_rate"] = 0.1  # gradients are tiny: makes every step visible
    return parse_params(values, "test")


def moved(root, output) -> set[str]:
    before, after = weights(root / "models/base"), weights(output / "checkpoint-2")
    return {name for name in before if not torch.equal(before[name], after[name])}


def is_projector(name) -> bool:
    return name.startswith("visual.merger.")


def is_tower(name) -> bool:
    return name.startswith("visual.") and not is_projector(name)


@pytest.mark.parametrize(
    ("options", "is_frozen"),
    [
        ({"freeze_vision": True}, is_tower),
        ({"freeze_projector": True}, is_projector),
        (
            {"freeze_vision": True, "freeze_projector": True, "gradient_checkpointing": True},
            lambda name: name.startswith("visual."),
        ),
    ],
    ids=["tower", "projector", "both"],
)
def test_frozen_parameters_stay_and_all_others_change(small_root, tmp_path, options, is_frozen):
    train(job_of("sft", params_with(**options), small_root, tmp_path))
    names = set(weights(small_root / "models/base"))
    frozen = {name for name in names if is_frozen(name)}
    assert frozen
    assert moved(small_root, tmp_path) == names - frozen


def write_tiny_qwen2_5_vl(folder):
    tokenizer = build_tokenizer(["Please provide the box. <think> </think> <answer> </answer>"])
    build_model(tokenizer, seed=0).save_pretrained(folder)
    build_processor(tokenizer, 3136, 12_845_056).save_pretrained(folder)


@pytest.mark.parametrize("projector_too", [False, True], ids=["tower", "both"])
@pytest.mark.parametrize(
    ("write_base", "runs_without"),
    [(write_tiny_qwen2_5_vl, 2), (write_tiny_qwen3_vl, 1)],
    ids=["qwen2_5_vl", "qwen3_vl"],
)
def test_a_frozen_tower_is_run_once_and_what_is_trained_gets_the_same_gradients(
    tmp_path, image, write_base, runs_without, projector_too
):
    """With gradient checkpointing transformers asks for gradients of Qwen2.5-VL's patches."""
    write_base(tmp_path)
    options = {"freeze_vision": True, "freeze_projector": projector_too}
    expected, runs = gradients_of(tmp_path, image, options, stops=False)
    assert runs == runs_without
    gradients, runs = gradients_of(tmp_path, image, options, stops=True)
    assert runs == 1
    assert gradients.keys() == expected.keys()
    assert any(name.startswith("model.visual.merger") for name in expected) != projector_too
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)


def gradients_of(folder, image, options, stops):
    """(gradients of what is trained, runs of the first vision block) with checkpointing."""
    task = parse_params(small_values(), "test").task
    processor, model = load_processor(folder, task), load_model(folder, task)
    family = family_of(model.config.model_type)
    freeze(model, family, params_with(**options).train)
    if stops:
        stop_gradients_in_frozen_tower(model, family)
    model.activation_checkpointing_enable()
    model.train()
    runs = []
    model.model.visual.blocks[0].norm1.register_forward_pre_hook(lambda *_: runs.append(1))
    text = chat_text(processor, "where?")
    inputs = processor(text=[text], images=[[open_image(image)]], return_tensors="pt")
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in found.values())
    return found, len(runs)


@pytest.fixture(scope="module")
def adapted(small_root, tmp_path_factory):
    """A project whose model was trained with adapters, and with gradient checkpointing."""
    root = tmp_path_factory.mktemp("adapted")
    shutil.copytree(small_root / "models/base", root / "models/base")
    (root / "data").symlink_to(small_root / "data")
    params = params_with(
        lora=LORA | {"r": 4, "alpha": 8, "dropout": 0.0},
        freeze_vision=True,
        gradient_checkpointing=True,
    )
    train(job_of("sft", params, root, root / "models/sft"))
    return root, params


def test_lora_writes_adapters_of_the_language_model_alone(adapted):
    root, _ = adapted
    folder = root / "models/sft/checkpoint-2"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (4, 8, "CAUSAL_LM")
    assert config["base_model_name_or_path"] == "models/base"  # a project can move
    tensors = load_file(folder / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in tensors} == LINEAR
    assert all(".language_model." in name for name in tensors)
    assert len(tensors) == 4 * len(LINEAR) * 2  # layers x linear x (A, B)
    assert all(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)
    assert not (folder / "model.safetensors").exists()
    assert (folder / "contract.json").exists()


def test_an_adapter_is_loaded_onto_its_base_and_generates(adapted, image, tmp_path):
    root, params = adapted
    elsewhere = shutil.copytree(root / "models", tmp_path / "moved/models")
    folder = elsewhere / "sft/checkpoint-2"
    model = load_model(folder, params.task)
    plain = PeftModel.from_pretrained(load_model(elsewhere / "base", params.task), folder)
    processor = load_processor(folder, params.task)
    asked = [Question(prompts.fill_template("plain", prompts.question_for("red one")), image)]
    answer = generate_completions(model, processor, asked, 400, 6)
    assert answer == generate_completions(plain.merge_and_unload(), processor, asked, 400, 6)
    assert answer != generate_completions(
        load_model(elsewhere / "base", params.task), processor, asked, 400, 6
    )
    names = {checkpoint_digest(root / f"models/sft/checkpoint-{step}") for step in (1, 2)}
    assert len(names) == 2


def test_grpo_trains_adapters_against_their_own_base(small_root, tmp_path, monkeypatch):
    monkeypatch.setitem(REWARDS, "iou", lambda batch: [float(len(t) % 3) for t in batch.texts])
    params = params_with("grpo", lora=LORA | {"r": 4, "alpha": 8, "dropout": 0.0})
    train(job_of("grpo", params, small_root, tmp_path))
    rows = [json.loads(x) for x in (tmp_path / "training_log.jsonl").read_text().splitlines()]
    assert next(row["kl"] for row in rows if "kl" in row) == pytest.approx(0, abs=1e-6)
    assert (tmp_path / "checkpoint-2/adapter_model.safetensors").exists()


def test_a_lora_target_outside_the_language_model_is_refused(small_root, small_params):
    model = load_model(small_root / "models/base", small_params.task)
    targets = ["q_proj", "qkv"]  # qkv is a layer of the vision tower
    lora = params_with(lora=LORA | {"targets": targets}).train.lora
    with pytest.raises(ConfigError, match=r"targets \['qkv'\](.|\n)*need some of down_proj"):
        lora_config(model, QWEN2_5_VL, lora)


@pytest.mark.parametrize(("options", "dtype"), [({}, "F32"), ({"lora": LORA | {"r": 2}}, "F32")])
def test_with_half_precision_trained_weights_are_kept_in_32_bits(
    small_root, tmp_path, options, dtype
):
    values = small_values()
    values["task"]["dtype"] = "bfloat16"
    values["train"] |= options
    train(job_of("sft", parse_params(values, "test"), small_root, tmp_path))
    (file,) = (tmp_path / "checkpoint-2").glob("*.safetensors")
    with safe_open(file, "pt") as tensors:
        assert {tensors.get_slice(name).get_dtype() for name in tensors.offset_keys()} == {dtype}
