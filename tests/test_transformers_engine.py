"""The engine `transformers`: batches prepared ahead, budgets from memory."""

import threading
from types import SimpleNamespace

import pytest
import torch

from vlm_r1.errors import ConfigError
from vlm_r1.inference.engines.transformers_engine import one_ahead
from vlm_r1.inference.token_budget import token_budget, token_bytes

TEXT = SimpleNamespace(
    hidden_size=4,
    num_attention_heads=2,
    num_key_value_heads=1,
    num_hidden_layers=3,
    intermediate_size=10,
    vocab_size=256,
)
VISION = SimpleNamespace(hidden_size=2, intermediate_size=5, spatial_merge_size=2)
# KV cache 2 copies x 2 x 3 layers x 1 head x 2 wide = 24 numbers; a layer of text 4 x 4 + 3 x 10 =
# 46, four patches of 4 x 2 + 3 x 5 = 23: 92; logits 3 x 4 bytes x 256 / 256 tokens = 12 bytes
TOKEN_BYTES = 2 * (24 + 46 + 92) + 12


def test_the_next_batch_is_prepared_while_one_is_in_use():
    prepared = [threading.Event() for _ in range(3)]

    def prepare(number: int) -> int:
        prepared[number].set()
        return 10 * number

    batches = one_ahead(prepare, range(3))
    assert next(batches) == 0
    assert prepared[1].wait(5)
    assert not prepared[2].is_set()
    assert list(batches) == [10, 20]


def test_a_broken_image_is_raised_at_its_batch():
    def prepare(number: int) -> int:
        return 1 // (1 - number)

    batches = one_ahead(prepare, range(2))
    assert next(batches) == 1
    with pytest.raises(ZeroDivisionError):
        next(batches)


def test_nothing_to_prepare():
    assert list(one_ahead(str, [])) == []


def test_bytes_of_a_token_worked_by_hand():
    config = SimpleNamespace(text_config=TEXT, vision_config=VISION)
    assert token_bytes(config, number_bytes=2) == TOKEN_BYTES


def model_on(device: str, vision: SimpleNamespace = VISION) -> SimpleNamespace:
    return SimpleNamespace(
        device=torch.device(device),
        dtype=torch.bfloat16,
        config=SimpleNamespace(text_config=TEXT, vision_config=vision, model_type="qwen2_5_vl"),
        get_memory_footprint=lambda: 1000,
    )


@pytest.fixture
def gpus(monkeypatch):
    """A function that makes the machine have GPUs of so much memory."""

    def have(*total_bytes: int) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(total_bytes))
        monkeypatch.setattr(
            torch.cuda,
            "get_device_properties",
            lambda number: SimpleNamespace(total_memory=total_bytes[number]),
        )

    return have


def test_the_budget_follows_from_the_smallest_gpu_and_the_weights(gpus):
    memory = 1000 + round(10_000 * TOKEN_BYTES / 0.7)  # 10,000 tokens in 70 % beside the weights
    gpus(2 * memory, memory + TOKEN_BYTES)
    assert token_budget(model_on("cuda")) == 8192  # the next multiple of 4096 below


@pytest.mark.parametrize(
    ("device", "vision", "told"),
    [
        ("cpu", VISION, "null with qwen2_5_vl on cpu"),
        ("cuda", SimpleNamespace(hidden_size=2), "null with qwen2_5_vl on cuda"),
        ("cuda", VISION, "too little for 4096 tokens"),
    ],
)
def test_a_budget_that_cannot_be_computed_is_refused(gpus, device, vision, told):
    gpus(100_000)
    with pytest.raises(ConfigError, match=told):
        token_budget(model_on(device, vision))
