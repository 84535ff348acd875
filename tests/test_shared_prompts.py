"""GRPO whose prompts are read once a group: the numbers of TRL's own way."""

import json
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from transformers import GenerationConfig
from trl.trainer.utils import add_fused_lm_head

from tests.conftest import LORA, ROOT, small_values
from tests.training_jobs import job_of, train
from vlm_r1.config import parse_params
from vlm_r1.errors import ModelError
from vlm_r1.models.loading import chat_text, load_model, load_processor
from vlm_r1.rec.prompts import fill_template, question_for
from vlm_r1.training import shared_prompts
from vlm_r1.training.group_rows import ROW, first_rows, in_rollout_order
from vlm_r1.training.packed_groups import Groups, pack
from vlm_r1.training.resume import read_log
from vlm_r1.training.shared_prompts import SharedPromptTrainer, generate_groups, why_not

CASES = {
    "whole groups": {},
    "groups cut by micro-batches": {"grpo": {"micro_batch": 2}},
    "all groups in a micro-batch, two iterations": {
        "grpo": {"micro_batch": 8, "num_iterations": 2}
    },
    "no reference": {"grpo": {"beta": 0.0, "stop_at_answer": True}},
    "checkpointing, a frozen tower": {
        "train": {"gradient_checkpointing": True, "freeze_vision": True}
    },
    "adapters, sdpa": {
        "train": {"lora": LORA | {"dropout": 0.0}},
        "task": {"attention": "sdpa"},
    },
    "further prompts": {"grpo": {"max_resamples": 1}},
}
# grid of sizes in px, and completions of each prompt
SIZES = [(84, 84), (140, 56), (84, 84), (56, 112)]
GROUPS = [3, 1, 2, 4]
TEXT = ("input_ids", "attention_mask", "mm_token_type_ids")


def params_with(share, train_options=None, task=None, grpo=None):
    values = small_values()
    values["grpo"] |= {"max_completion_tokens": 64, "learning_rate": 1e-4} | (grpo or {})
    values["grpo"]["share_prompts"] = share
    values["train"] |= train_options or {}
    values["task"] |= task or {}
    return parse_params(values, "test")


def trained(share, root, output, base=ROOT / "models/base", **options):
    """The samples, the weights at the end and the log of a training."""
    params = params_with(share, options.get("train"), options.get("task"), options.get("grpo"))
    job = replace(job_of("grpo", params, root, output), base=base)
    train(job)
    tables = [json.loads(f.read_text()) for f in sorted(output.glob("samples/*.json"))]
    last = max(output.glob("checkpoint-*"), key=lambda folder: int(folder.name[11:]))
    (file,) = last.glob("*model.safetensors")
    return tables, load_file(file), read_log(output / "training_log.jsonl")


@pytest.mark.parametrize("case", CASES)
def test_a_training_is_that_of_plain_trl(small_root, tmp_path, case):
    """Equal completions and rewards; losses, KL and norms of gradients to the fourth digit.

    TRL averages entropies over micro-batches, and its own hold other rows, as it shuffles them.
    """
    tables, found, log = trained(True, small_root, tmp_path / "shared", **CASES[case])
    plain_tables, plain, plain_log = trained(False, small_root, tmp_path / "plain", **CASES[case])
    assert tables == plain_tables
    assert len({row["reward"] for row in tables[0]}) > 1
    assert len(log) == len(plain_log) == 2
    for line, plain_line in zip(log, plain_log, strict=True):
        names = {n for n in line if "time" not in n and "second" not in n} - {"total_flos"}
        names -= {"entropy"} if "cut" in case else set()
        assert {n: line[n] for n in names} == pytest.approx(
            {n: plain_line[n] for n in names}, abs=1e-4
        )
    base = load_file(ROOT / "models/base/model.safetensors")
    apart = max(float((found[n] - plain[n]).abs().max()) for n in plain)
    moved = max(float((plain[n] - base.get(n, 0)).abs().max()) for n in plain)
    assert 0 < apart <= 0.1 * moved  # Adam's first steps follow the sign of the smallest gradients


def test_weights_stay_together_over_eight_steps(small_root, tmp_path):
    steps = {"train": {"steps": 8, "checkpoints": 8}}
    _, found, _ = trained(True, small_root, tmp_path / "shared", **steps)
    _, plain, _ = trained(False, small_root, tmp_path / "plain", **steps)
    base = load_file(ROOT / "models/base/model.safetensors")
    apart = max(float((found[n] - plain[n]).abs().max()) for n in plain)
    moved = max(float((plain[n] - base[n]).abs().max()) for n in plain)
    assert 0 < apart <= 0.05 * moved


def test_equal_rewards_move_nothing_where_policy_and_reference_are_one(small_root, tmp_path):
    """Groups of 4 cut into 2 and 2: a last bit that differs would be a whole step of Adam."""
    untrained = small_root / "models/base"
    tables, found, log = trained(
        True, small_root, tmp_path, untrained, grpo={"micro_batch": 2, "max_completion_tokens": 8}
    )
    assert {row["reward"] for row in tables[0]} == {0.0}
    assert [line["grad_norm"] for line in log if "grad_norm" in line] == [0.0, 0.0]
    before = load_file(untrained / "model.safetensors")
    assert all(torch.equal(found[name], before[name]) for name in before)


def test_cost_counts_what_sharing_saves(small_root, tmp_path):
    costs = []
    for share in (True, False):
        trained(share, small_root, tmp_path / str(share))
        costs.append(json.loads((tmp_path / str(share) / "cost.json").read_text())["flops"])
    assert costs[0] < 0.7 * costs[1]  # groups of 4 and short prompts


def loaded(dtype="float32", attention="eager"):
    """The committed base with TRL's head, and its processor."""
    task = params_with(True, task={"dtype": dtype, "attention": attention}).task
    model = load_model(ROOT / "models/base", task)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    processor = load_processor(ROOT / "models/base", task)
    processor.tokenizer.padding_side = "left"
    return model, processor


def prompts_of(processor):
    """Model inputs of four prompts of other lengths, about images of three sizes."""
    phrases = ["red circle", "the blue square at the top left", "green", "the big triangle"]
    texts = [chat_text(processor, fill_template("r1", question_for(phrase))) for phrase in phrases]
    images = [[Image.effect_noise(size, 80).convert("RGB")] for size in SIZES]
    return processor(text=texts, images=images, padding=True, return_tensors="pt")


def completions_of(rows):
    """Random ids of 1 to 9 tokens, right-padded, and their mask."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 10, (rows,), generator=generator)
    mask = (torch.arange(9) < lengths[:, None]).long()
    return torch.randint(50, 450, (rows, 9), generator=generator) * mask, mask


def judged(model, inputs, share, batch_size=None):
    """Log-probabilities and entropies of `GROUPS` completions, as the trainer asks for them."""
    trainer = object.__new__(SharedPromptTrainer)
    trainer.accelerator, trainer.model = Accelerator(cpu=True), model
    trainer.shares_prompts = share
    sizes = torch.tensor(GROUPS)
    ids, mask = completions_of(sum(GROUPS))
    own = {name: inputs[name].repeat_interleave(sizes, 0) for name in TEXT}
    patches = inputs["pixel_values"].split(inputs["image_grid_thw"].prod(-1).tolist())
    copies = [1] * 4 if share else GROUPS
    logps, entropies, _ = trainer._get_per_token_logps_and_entropies(
        model,
        torch.cat([own["input_ids"], ids], 1),
        torch.cat([own["attention_mask"], mask], 1),
        logits_to_keep=9,
        batch_size=batch_size,
        compute_entropy=True,
        pixel_values=torch.cat([p for p, n in zip(patches, copies, strict=True) for _ in range(n)]),
        image_grid_thw=inputs["image_grid_thw"].repeat_interleave(torch.tensor(copies), 0),
        num_images=[
            n for size in GROUPS for n in ([1, *[0] * (size - 1)] if share else [1] * size)
        ],
        mm_token_type_ids=torch.cat([own["mm_token_type_ids"], torch.zeros_like(ids)], 1),
    )
    return logps * mask, entropies * mask


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("batch_size", [None, 4])  # 4 rows: the groups of 2 and 4 are cut
def test_log_probabilities_and_gradients_are_those_of_single_rows(attention, batch_size):
    """Images of several sizes, padded prompts, groups of 1 to 4."""
    model, processor = loaded(attention=attention)
    inputs = prompts_of(processor)
    found = []
    for share in (False, True):
        model.zero_grad()
        logps, entropies = judged(model, inputs, share, batch_size)
        (logps * torch.linspace(-1, 2, logps.numel()).view_as(logps)).sum().backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        found.append((logps.detach(), entropies.detach(), grads))
    (plain, plain_entropy, plain_grads), (shared, entropy, grads) = found
    assert torch.allclose(shared, plain, atol=1e-4)
    assert torch.allclose(entropy, plain_entropy, atol=1e-4)
    assert grads.keys() == plain_grads.keys()
    for name, grad in plain_grads.items():
        assert float((grads[name] - grad).norm()) <= 1e-4 * float(grad.norm()) + 1e-6, name


def test_in_16_bits_the_error_is_no_larger_than_that_of_single_rows():
    exact, _ = judged(*exact_inputs(), share=False)
    model, processor = loaded("bfloat16")
    inputs = prompts_of(processor)
    errors = [
        float((judged(model, inputs, share)[0].float() - exact).abs().mean())
        for share in (True, False)
    ]
    assert 0 < errors[0] <= 1.05 * errors[1]


def exact_inputs():
    model, processor = loaded()
    return model, prompts_of(processor)


@pytest.mark.parametrize("samples", [False, True])
def test_completions_are_those_of_generate(samples):
    model, processor = loaded()
    inputs = prompts_of(processor)
    sizes = torch.tensor(GROUPS)
    config = GenerationConfig(
        max_new_tokens=40,
        do_sample=samples,
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
        top_k=0 if samples else None,
        disable_compile=True,
    )
    patches = inputs["pixel_values"].split(inputs["image_grid_thw"].prod(-1).tolist())
    repeated = {
        name: inputs[name].repeat_interleave(sizes, 0) for name in (*TEXT, "image_grid_thw")
    }
    pixels = torch.cat([p for p, n in zip(patches, GROUPS, strict=True) for _ in range(n)])
    torch.manual_seed(5)
    plain = model.generate(**repeated, pixel_values=pixels, generation_config=config)
    after = torch.rand(1)
    torch.manual_seed(5)
    found = generate_groups(model, model.generate, sizes, **inputs, generation_config=config)
    assert torch.equal(found, plain)
    assert torch.equal(torch.rand(1), after)  # the stream of random numbers is that of `generate`


def test_a_row_holds_the_prompt_and_a_block_for_each_completion():
    """Prompt 7 8 9 with completions 1 2 and 3, and prompt 8 9, padded, with completion 4."""
    packed = pack(
        Groups(
            prompt_ids=torch.tensor([[7, 8, 9], [0, 8, 9]]),
            prompt_mask=torch.tensor([[1, 1, 1], [0, 1, 1]]),
            positions=torch.tensor([[[0, 1, 2], [1, 0, 1]]]),
            completion_ids=torch.tensor([[1, 2], [3, 0], [4, 0]]),
            completion_mask=torch.tensor([[1, 1], [1, 0], [1, 0]]),
            group_of_row=torch.tensor([0, 0, 1]),
        )
    )
    assert packed.input_ids.tolist() == [[7, 8, 9, 1, 9], [0, 8, 9, 0, 0]]
    assert packed.labels.tolist() == [[-100, -100, 1, 2, 3], [-100, -100, 4, -100, -100]]
    assert packed.position_ids.tolist() == [[[0, 1, 2, 3, 2], [1, 0, 1, 0, 0]]]
    assert packed.mask.int().tolist() == [
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]],
        [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 0, 1, 0], [0, 1, 0, 0, 1]],
    ]
    values = torch.tensor([[0.0, 0, 10, 20, 30], [0, 0, 40, 0, 0]])
    assert packed.unpack(values).tolist() == [[10, 20], [30, 0], [40, 0]]


def test_rows_come_back_in_order_and_each_part_of_a_group_has_its_image():
    """Groups of 3 and 1 in micro-batches of 2, shuffled: rows 2 0, then 3 1."""
    first = {
        ROW: torch.tensor([2, 0]),
        "num_images": [0, 1],
        "pixel_values": torch.tensor([[1.0], [2.0]]),
        "image_grid_thw": torch.tensor([[1, 1, 2]]),
        "num_items_in_batch": torch.tensor(9),
    }
    second = first | {
        ROW: torch.tensor([3, 1]),
        "num_images": [1, 0],
        "pixel_values": torch.tensor([[3.0]]),
        "image_grid_thw": torch.tensor([[1, 1, 1]]),
    }
    batches = in_rollout_order([first, second])
    assert [batch[ROW].tolist() for batch in batches] == [[0, 1], [2, 3]]
    assert [batch["num_images"] for batch in batches] == [[1, 0], [1, 1]]
    assert [batch["pixel_values"].flatten().tolist() for batch in batches] == [[1, 2], [1, 2, 3]]
    assert batches[1]["image_grid_thw"].tolist() == [[1, 1, 2], [1, 1, 1]]


def test_a_group_is_rows_with_one_prompt_and_image():
    assert first_rows(["a", "a", "b", "a"]) == [0, 2, 3]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"attention": "flash_attention_2"}, "flash_attention_2 takes no mask"),
        ({"use_vllm": True}, "written by vLLM"),
        ({"ds3_gather_for_generation": False}, "ZeRO-3 without"),
        ({"sliding": True}, "sliding window"),
        ({"experts": True}, "experts"),
        ({}, None),
    ],
)
def test_sharing_is_off_where_it_cannot_be(change, reason, caplog):
    model, _ = loaded()
    model.config._attn_implementation = change.get("attention", "eager")
    if "experts" in change:
        model.config.get_text_config().output_router_logits = True
    if "sliding" in change:
        text = model.config.get_text_config()
        text.layer_types = ["sliding_attention"] * text.num_hidden_layers
        text.sliding_window = 8
    trainer = object.__new__(SharedPromptTrainer)
    trainer.accelerator, trainer.model = Accelerator(cpu=True), model
    trainer.args = SimpleNamespace(
        use_vllm=change.get("use_vllm", False),
        ds3_gather_for_generation=change.get("ds3_gather_for_generation", True),
    )
    with caplog.at_level(logging.INFO):
        trainer.share_prompts(True)
    assert trainer.shares_prompts is (reason is None)
    assert reason is None or (reason in caplog.text and reason in why_not(model, trainer.args))


def test_numbers_that_differ_end_the_training_before_its_first_step(
    small_root, tmp_path, monkeypatch
):
    """As if a library took no positions any more."""

    def without_positions(batch):
        packed = pack(batch)
        return packed._replace(position_ids=torch.zeros_like(packed.position_ids))

    monkeypatch.setattr(shared_prompts, "pack", without_positions)
    with pytest.raises(ModelError, match=r"log-probabilities up to .* apart, of 2 prompts"):
        trained(True, small_root, tmp_path)
