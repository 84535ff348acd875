"""An image read once for its phrases, rows that leave: each token as `generate` gives it."""

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
from vlm_r1.inference.generate import ask_all
from vlm_r1.inference.questions import Question, question_about
from vlm_r1.inference.shared_prefix import RoomyLayer, can_share, head_lengths
from vlm_r1.models.loading import load_model, load_processor

SIZES = {"low": (140, 56), "tall": (56, 112), "square": (84, 84)}  # px; 10, 8 and 9 image tokens
PHRASES = (
    *(("square", phrase) for phrase in ("red circle", "the blue square at the top left", "green")),
    *(("low", phrase) for phrase in ("the yellow triangle", "red circle")),
    ("tall", "the big red square in the middle"),
    ("square", "triangle at the bottom"),
)


@pytest.fixture
def able(small_params):
    """The committed base, for one test to change."""
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
    return [question_about(template, phrase, images[name]) for name, phrase in PHRASES]


def texts(able, questions: list[Question], batch_tokens: int = 100_000) -> list[str]:
    return [answer.text for answer in ask_all(*able, questions, batch_tokens, 40)]


@pytest.fixture
def apart(monkeypatch):
    """From here on `generate` reads every row whole."""

    def forbid():
        monkeypatch.setattr(generation, "can_share", lambda _: False)

    return forbid


@pytest.mark.parametrize("template", ["plain", "r1"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_sharing_changes_no_token(able, images, template, attention, apart):
    able[0].set_attn_implementation(attention)
    questions = asked(images, template)
    together = texts(able, questions)
    one_by_one = texts(able, questions, batch_tokens=1)
    apart()
    assert together == one_by_one == texts(able, questions, batch_tokens=1)
    assert together == texts(able, questions)
    assert len(set(together)) == len(PHRASES)


def test_a_penalty_of_the_checkpoint_holds(able, images, apart):
    """Qwen2.5-VL comes with one; `generate` hands it on."""
    questions = asked(images, "r1")
    without = texts(able, questions)
    able[0].generation_config.repetition_penalty = 1.3
    together = texts(able, questions)
    apart()
    assert without != together == texts(able, questions)


def test_a_penalty_finds_no_padding_inside_a_prompt(able, images, monkeypatch):
    """`generate` itself leaves out only the padding before a prompt."""
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


def test_an_answer_that_does_not_end_is_cut(able, images, apart):
    questions = asked(images, "r1")
    cut = [answer.text for answer in ask_all(*able, questions, 100_000, 3)]
    apart()
    assert cut == [answer.text for answer in ask_all(*able, questions, 100_000, 3)]
    assert all(len(able[1].tokenizer(text)["input_ids"]) == 3 for text in cut)


def test_a_image_is_read_once_and_a_row_that_is_done_no_more(able, images, monkeypatch):
    read, forward = [], able[0].base_model.forward

    def note(input_ids=None, **inputs):
        read.append(tuple(input_ids.shape))
        return forward(input_ids=input_ids, **inputs)

    monkeypatch.setattr(able[0].base_model, "forward", note)
    lengths = [
        len(able[1].tokenizer(text)["input_ids"]) for text in texts(able, asked(images, "r1"))
    ]
    heads, tails, *steps = read
    assert heads[0] == len(SIZES)
    assert tails[0] == len(PHRASES)
    assert tails[1] < heads[1]
    assert steps == [
        (sum(length > step for length in lengths), 1) for step in range(1, max(lengths))
    ]


def test_what_cannot_share_is_left_to_generate_and_said_once(able, images, caplog):
    caplog.set_level(logging.INFO, logger="vlm_r1")
    generation._say_that_rows_read_apart.cache_clear()
    questions = asked(images, "plain")
    together = texts(able, questions)
    assert caplog.messages == []
    text = able[0].config.text_config
    text.layer_types = ["full_attention"] * 3 + ["sliding_attention"]
    text.sliding_window = 4096  # wider than any prompt here
    assert not can_share(able[0])
    able[0].base_model.language_model.has_sliding_layers = True
    assert texts(able, questions, batch_tokens=400) == together
    said = "qwen2_5_vl reads an image anew for each phrase: its past cannot be shared"
    assert caplog.messages == [said]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([[1, 9, 9, 5, 6, 7], [1, 9, 5, 6, 8]], [5, 4]),
        ([[1, 9, 5, 6], [1, 9, 9, 7, 6]], [2, 3]),  # the phrases differ at once
        ([[1, 9, 5, 6], [1, 9, 5, 6]], [3, 3]),  # nothing differs: a token is left
        ([[1, 9, 5]], [2]),
        ([[9, 5, 6], [9, 5, 6, 7]], [2, 2]),
    ],
)
def test_heads_worked_by_hand(ids, expected):
    assert head_lengths(ids, image_token=9) == expected


@given(st.lists(st.one_of(st.integers(1, 80), st.lists(st.integers(0, 2), min_size=1)), max_size=6))
def test_a_roomy_cache_holds_what_a_plain_one_does(moves):
    """A number appends so many tokens; a list keeps those rows, of up to three."""
    layer, rows, grown = RoomyLayer(), 3, 0
    plain, roomy = DynamicCache(), Cache(layers=[layer])
    for move in moves:
        if isinstance(move, int):
            states = torch.rand(2, rows, 1, move, 2)
            expected, found = plain.update(*states, 0), roomy.update(*states, 0)
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
            grown += move
        elif grown:
            chosen = torch.tensor([row % rows for row in move])
            rows = len(chosen)
            plain.batch_select_indices(chosen)
            roomy.batch_select_indices(chosen)
            assert torch.equal(plain.layers[0].keys, roomy.layers[0].keys)
            assert torch.equal(plain.layers[0].values, roomy.layers[0].values)
        assert roomy.get_seq_length() == plain.get_seq_length() == grown
