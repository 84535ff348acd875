"""Prefix KV cache and early exit of rows: the same tokens as plain `generate`."""

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import Cache, DynamicCache
from transformers.generation import RepetitionPenaltyLogitsProcessor

from tests.conftest import ROOT
from vlm_r1.inference import generate as generation
from vlm_r1.inference.generate import generate_completions
from vlm_r1.inference.questions import Question, question_about
from vlm_r1.inference.shared_prefix import prefix_lengths
from vlm_r1.models import decoding
from vlm_r1.models.decoding import PreallocatedLayer, supports_shared_prefix
from vlm_r1.models.loading import load_model, load_processor

SIZES = {"low": (140, 56), "tall": (56, 112), "square": (84, 84)}  # px; 10, 8 and 9 image tokens
EXPRESSIONS = (
    *(("square", phrase) for phrase in ("red circle", "the blue square at the top left", "green")),
    *(("low", phrase) for phrase in ("the yellow triangle", "red circle")),
    ("tall", "the big red square in the middle"),
    ("square", "triangle at the bottom"),
)


@pytest.fixture
def able(small_params):
    """The committed base; each test has its own copy to change."""
    base = ROOT / "models/base"
    return load_model(base, small_params.task).eval(), load_processor(base, small_params.task)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> dict:
    """Noise of three shapes."""
    folder, files = tmp_path_factory.mktemp("images"), {}
    generator = torch.Generator().manual_seed(0)
    for name, (width, height) in SIZES.items():
        pixels = torch.randint(0, 255, (height, width, 3), generator=generator, dtype=torch.uint8)
        files[name] = folder / f"{name}.png"
        Image.fromarray(pixels.numpy()).save(files[name])
    return files


def asked(images: dict, template: str) -> list[Question]:
    return [question_about(template, phrase, images[name]) for name, phrase in EXPRESSIONS]


def texts(able, questions: list[Question], batch_tokens: int = 100_000) -> list[str]:
    return [answer.text for answer in generate_completions(*able, questions, batch_tokens, 40)]


@pytest.fixture
def disable_sharing(monkeypatch):
    """A function after whose call every row is prefilled in full."""

    def disable():
        monkeypatch.setattr(generation, "supports_shared_prefix", lambda _: False)

    return disable


@pytest.mark.parametrize("template", ["plain", "r1"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_shared_prefix_changes_no_token(able, images, template, attention, disable_sharing):
    able[0].set_attn_implementation(attention)
    questions = asked(images, template)
    together = texts(able, questions)
    one_by_one = texts(able, questions, batch_tokens=1)
    disable_sharing()
    assert together == one_by_one == texts(able, questions, batch_tokens=1)
    assert together == texts(able, questions)
    assert len(set(together)) == len(EXPRESSIONS)


def test_the_repetition_penalty_of_a_checkpoint_applies(able, images, disable_sharing):
    """Qwen2.5-VL has one in its generation config."""
    questions = asked(images, "r1")
    without = texts(able, questions)
    able[0].generation_config.repetition_penalty = 1.3
    together = texts(able, questions)
    disable_sharing()
    assert without != together == texts(able, questions)


def test_the_repetition_penalty_sees_no_padding_inside_a_prompt(able, images, monkeypatch):
    """`generate` itself excludes only the padding before a prompt."""
    given, penalty = [], RepetitionPenaltyLogitsProcessor.__call__

    def note(self, ids, scores):
        given.append(ids)
        return penalty(self, ids, scores)

    monkeypatch.setattr(RepetitionPenaltyLogitsProcessor, "__call__", note)
    able[0].generation_config.repetition_penalty = 1.3
    texts(able, asked(images, "r1"))
    pad = able[1].tokenizer.pad_token_id
    padded = [(row == pad).nonzero()[:, 0].tolist() for row in given[0]]
    assert padded == [list(range(len(columns))) for columns in padded]
    assert any(padded)


def test_a_completion_stops_at_max_new_tokens(able, images, disable_sharing):
    questions = asked(images, "r1")
    cut = [answer.text for answer in generate_completions(*able, questions, 100_000, 3)]
    disable_sharing()
    assert cut == [answer.text for answer in generate_completions(*able, questions, 100_000, 3)]
    assert all(len(able[1].tokenizer(text)["input_ids"]) == 3 for text in cut)


def test_an_image_is_prefilled_once_and_finished_rows_are_dropped(able, images, monkeypatch):
    shapes, forward = [], able[0].base_model.forward

    def note(input_ids=None, **inputs):
        shapes.append(tuple(input_ids.shape))
        return forward(input_ids=input_ids, **inputs)

    monkeypatch.setattr(able[0].base_model, "forward", note)
    lengths = [
        len(able[1].tokenizer(text)["input_ids"]) for text in texts(able, asked(images, "r1"))
    ]
    prefixes, suffixes, *steps = shapes
    assert prefixes[0] == len(SIZES)
    assert suffixes[0] == len(EXPRESSIONS)
    assert suffixes[1] < prefixes[1]
    assert steps == [
        (sum(length > step for length in lengths), 1) for step in range(1, max(lengths))
    ]


@pytest.mark.parametrize("limit", [6, 40])
def test_rows_looked_at_every_few_tokens_give_the_same_completions(
    able, images, monkeypatch, limit
):
    """As on a GPU; between two looks rows that are done generate padding, which is not returned."""
    questions = [*asked(images, "r1"), *asked(images, "plain")]
    expected = generate_completions(*able, questions, 100_000, limit)
    assert len({answer.new_tokens for answer in expected}) > 1 or limit == 6
    for tokens in (4, 64):
        monkeypatch.setitem(decoding.TOKENS_PER_CHECK, "cpu", tokens)
        assert generate_completions(*able, questions, 100_000, limit) == expected


def test_padding_after_the_last_row_is_cut_off_even_if_it_ends_a_turn(able, images, monkeypatch):
    """A row that reaches the limit would otherwise seem to end with its padding."""
    tokenizer = able[1].tokenizer
    tokenizer.pad_token = tokenizer.eos_token
    questions = asked(images, "r1")
    expected = generate_completions(*able, questions, 100_000, 6)
    assert all(answer.cut_off for answer in expected)
    monkeypatch.setitem(decoding.TOKENS_PER_CHECK, "cpu", 4)
    assert generate_completions(*able, questions, 100_000, 6) == expected


def test_a_model_that_cannot_share_prefills_every_row_and_logs_it_once(able, images, caplog):
    caplog.set_level(logging.INFO, logger="vlm_r1")
    generation._log_unshared_prefixes.cache_clear()
    questions = asked(images, "plain")
    together = texts(able, questions)
    assert caplog.messages == []
    text = able[0].config.text_config
    text.layer_types = ["full_attention"] * 3 + ["sliding_attention"]
    text.sliding_window = 4096  # wider than any prompt here
    assert not supports_shared_prefix(able[0])
    able[0].base_model.language_model.has_sliding_layers = True
    assert texts(able, questions, batch_tokens=400) == together
    assert caplog.messages == [
        "qwen2_5_vl: the prompt prefix of an image is prefilled for each expression, not shared"
    ]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([[1, 9, 9, 5, 6, 7], [1, 9, 5, 6, 8]], [5, 4]),
        ([[1, 9, 5, 6], [1, 9, 9, 7, 6]], [2, 3]),  # the expressions differ at once
        ([[1, 9, 5, 6], [1, 9, 5, 6]], [3, 3]),  # nothing differs: one token is left
        ([[1, 9, 5]], [2]),
        ([[9, 5, 6], [9, 5, 6, 7]], [2, 2]),
    ],
)
def test_prefix_lengths_worked_by_hand(ids, expected):
    assert prefix_lengths(ids, image_token=9) == expected


@given(st.lists(st.one_of(st.integers(1, 80), st.lists(st.integers(0, 2), min_size=1)), max_size=6))
def test_a_preallocated_layer_holds_what_a_dynamic_one_does(moves):
    """A number appends that many tokens; a list selects rows by index (modulo their number)."""
    layer, rows, grown = PreallocatedLayer(), 3, 0
    plain, preallocated = DynamicCache(), Cache(layers=[layer])
    for move in moves:
        if isinstance(move, int):
            states = torch.rand(2, rows, 1, move, 2)
            expected, found = plain.update(*states, 0), preallocated.update(*states, 0)
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
            grown += move
        elif grown:
            chosen = torch.tensor([row % rows for row in move])
            rows = len(chosen)
            plain.batch_select_indices(chosen)
            preallocated.batch_select_indices(chosen)
            assert torch.equal(plain.layers[0].keys, preallocated.layers[0].keys)
            assert torch.equal(plain.layers[0].values, preallocated.layers[0].values)
        assert preallocated.get_seq_length() == plain.get_seq_length() == grown
