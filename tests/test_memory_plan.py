"""`vlm-r1 plan`: public parameter counts, ZeRO's arithmetic, and measured memory peaks."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from typer.testing import CliRunner

from tests.conftest import LORA, ROOT, small_values
from tests.layout import SOURCE
from vlm_r1.cli import main as cli
from vlm_r1.config import load_params, parse_params, profile_file
from vlm_r1.errors import ModelError
from vlm_r1.models.tiny.model import build_processor, build_tokenizer, tiny_config
from vlm_r1.preflight.footprint import Footprint, Workload
from vlm_r1.preflight.memory import GIB
from vlm_r1.preflight.plan import advise, make_plan, plan_work

COCO = (640, 480)
STUDIO_PX = 80
SFT_TEXT, GRPO_TEXT = (40, 27), (40, 32)  # tokens of the tests' prompts (no image), and answers


def profile(name):
    return load_params(profile_file(name, ROOT / "profiles"))


def with_train(params, **options):
    return params.model_copy(update={"train": params.train.model_copy(update=options)})


def on_gpus(params, gpus):
    launch = params.launch.model_copy(update={"processes_per_node": gpus})
    return params.model_copy(update={"launch": launch})


@pytest.mark.parametrize(
    ("name", "parameters"), [("3B", 3_754_622_976), ("7B", 8_292_166_656)]
)  # as the hub counts their safetensors
def test_the_public_configs_have_the_public_number_of_parameters(name, parameters):
    params = profile("vlm-r1-mar2025")
    task = params.task.model_copy(update={"base_model": f"Qwen/Qwen2.5-VL-{name}-Instruct"})
    footprint = Footprint(params.model_copy(update={"task": task}), ROOT)
    assert footprint.total == footprint.trainable == parameters


def test_a_base_without_a_config_is_refused(tmp_path):
    params = profile("vlm-r1-mar2025")
    name = {"base_model": "Qwen/Qwen2.5-VL-72B-Instruct"}
    task = params.task.model_copy(update=name | {"revision": None})
    with pytest.raises(ModelError, match=r"one of Qwen2\.5-VL-3B-Instruct, Qwen2\.5-VL-7B"):
        Footprint(params.model_copy(update={"task": task}), tmp_path)
    task = params.task.model_copy(update=name)  # of a commit: from the cache, once fetched
    with pytest.raises(ModelError, match="not in the local cache"):
        Footprint(params.model_copy(update={"task": task}), tmp_path)


def test_zero_divides_what_its_stage_says():
    """2 bytes of weights, 2 of gradients and 12 of AdamW for each parameter, or shares of that."""
    params = profile("vlm-r1-mar2025")
    n = 3_754_622_976

    def state(name):
        memory = make_plan(with_train(params, deepspeed=name), ROOT, "sft", COCO).memory
        return memory.weights, memory.gradients, memory.optimizer

    assert state("zero3") == (2 * n // 8, 2 * n // 8, 12 * n // 8)
    assert state("zero2") == (2 * n, 2 * n // 8, 12 * n // 8)
    assert state("zero3_offload") == (0, 2 * n // 8, 0)
    assert state(None) == (4 * n, 4 * n, 8 * n)  # 32-bit weights are their own master


def test_adapters_need_no_reference_and_no_optimizer_state_of_the_base():
    params = profile("lora-1gpu")
    memory = make_plan(params, ROOT, "grpo", COCO).memory
    footprint = Footprint(params, ROOT)
    per_layer = sum(64 * (i + o) for i, o in linear_sizes())
    assert footprint.trainable == 36 * per_layer
    assert (memory.reference, memory.optimizer) == (0, 8 * footprint.trainable)


def linear_sizes():
    """(in, out) of the linear layers of a text layer of the 3B."""
    h, kv, mlp = 2048, 256, 11008
    return [(h, h), (h, kv), (h, kv), (h, h), (h, mlp), (h, mlp), (mlp, h)]


def test_gradient_checkpointing_keeps_less_and_computes_more():
    params = profile("vlm-r1-feb2025")
    without, with_it = (
        make_plan(with_train(params, gradient_checkpointing=on), ROOT, "grpo", COCO)
        for on in (False, True)
    )
    assert with_it.memory.activations < without.memory.activations / 5
    assert with_it.flops_per_step > without.flops_per_step
    assert without.flops_total == 600 * without.flops_per_step


def test_for_a_plan_that_does_not_fit_the_first_changes_are_named():
    params = on_gpus(profile("vlm-r1-feb2025"), 8)
    plan = make_plan(params, ROOT, "grpo", COCO)
    assert advise(params, ROOT, plan, COCO, 1000 * GIB) == []
    advice = advise(params, ROOT, plan, COCO, 40 * GIB)
    assert advice == ["train.gradient_checkpointing: true"]
    alone = on_gpus(with_train(params, deepspeed=None), 1)
    advice = advise(alone, ROOT, make_plan(alone, ROOT, "grpo", COCO), COCO, 40 * GIB)
    assert advice[-1].startswith("train.lora")


def test_the_command_plans_both_methods():
    command = ["plan", "--profile", "vlm-r1-mar2025", "--gpus", "8", "--gpu-memory-gib", "80"]
    done = CliRunner().invoke(cli.app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["gpus"] == 8
    for method in ("sft", "grpo"):
        plan = found["methods"][method]
        assert plan["fits"] is True
        assert plan["accumulation"] == 2
        assert plan["flops_total"] == pytest.approx(600 * plan["flops_per_step"])


def write_base(root, **text) -> None:
    """Write an untrained tiny base into `root`; `text` overrides its text config, to widen it."""
    tokenizer = build_tokenizer(["Please provide the box. <think> </think> <answer> </answer>"])
    build_processor(tokenizer, 3136, 12_845_056).save_pretrained(root / "models/base")
    config = tiny_config(tokenizer)
    if text:
        values = config.to_dict()
        values["text_config"] |= text
        values["text_config"]["rope_parameters"]["mrope_section"] = [8, 12, 12]
        values["vision_config"] |= {"hidden_size": 256, "depth": 6, "intermediate_size": 768}
        values["vision_config"]["out_hidden_size"] = text["hidden_size"]
        for derived in ("layer_types", "head_dim"):
            values["text_config"].pop(derived, None)
        config = Qwen2_5_VLConfig(**values)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(root / "models/base")


MIDDLE = {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1536}
MIDDLE |= {"num_attention_heads": 8}
# base, method, smallest image (pixels), rows at once, accumulated, options
CASES = [
    ("tiny", "sft", 3136, 8, 1, {}),
    ("tiny", "grpo", 25_088, 8, 1, {}),
    ("middle", "sft", 3136, 4, 1, {}),
    ("middle", "sft", 25_088, 4, 2, {}),
    ("middle", "sft", 25_088, 8, 1, {"gradient_checkpointing": True}),
    ("middle", "sft", 25_088, 4, 1, {"lora": LORA | {"r": 8}, "freeze_vision": True}),
]


def case_params(root, method, min_pixels, rows, accumulated, options):
    values = small_values()
    values["launch"]["device"] = "cpu"
    values["task"]["min_pixels"] = min_pixels
    prompts = rows * accumulated // (4 if method == "grpo" else 1)
    values["train"] |= {"checkpoints": 2, "prompts_per_step": prompts, **options}
    values[method]["micro_batch"] = rows
    values["grpo"]["max_completion_tokens"] = GRPO_TEXT[1]
    file = root / f"{method}-{min_pixels}-{rows}-{accumulated}-{len(options)}.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.fixture(scope="module")
def measured(small_root, tmp_path_factory):
    """(root, params, peak bytes) of every case, from one fresh process."""
    roots = {}
    for name, text in (("tiny", {}), ("middle", MIDDLE)):
        roots[name] = tmp_path_factory.mktemp(name)
        (roots[name] / "data").symlink_to(small_root / "data")
        write_base(roots[name], **text)
    files = [case_params(roots[name], *rest) for name, *rest in CASES]
    words = [
        str(word)
        for file, (name, method, *_) in zip(files, CASES, strict=True)
        for word in (roots[name], file, method)
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/memory_process.py"), *words],
        env={**os.environ, "PYTHONPATH": f"{SOURCE}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stdout.splitlines()[-1])
    return [
        (roots[case[0]], load_params(file), peak)
        for case, file, peak in zip(CASES, files, peaks, strict=True)
    ]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_planned_peaks_are_within_a_quarter_of_measured_ones(measured, number):
    root, params, peak = measured[number]
    _, method, _, rows, accumulated, _ = CASES[number]
    footprint = Footprint(params, root)
    height, width = footprint.family.input_size(STUDIO_PX, STUDIO_PX, params.task)
    patches = (height // 14) * (width // 14)
    words, answer = SFT_TEXT if method == "sft" else GRPO_TEXT
    work = Workload(rows, words + patches // 4 + answer, patches, answer)
    planned = plan_work(params, method, footprint, rows * accumulated, work).memory.peak
    assert planned == pytest.approx(peak, rel=0.25)


def test_half_precision_halves_the_kept_activations():
    base = small_values()
    base["launch"]["device"] = "cpu"
    sizes = []
    for dtype in ("float32", "bfloat16"):
        base["task"]["dtype"] = dtype
        params = parse_params(base, dtype)
        work = Workload(rows=2, tokens=64, patches=36, predicted=16)
        sizes.append(Footprint(params, ROOT).vision_block_bytes(work))
    assert 0.5 <= sizes[1] / sizes[0] < 0.8  # norms and softmax stay in 32 bits
