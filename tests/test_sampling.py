"""Token counts of answers, and sampled answers: seeded, and independent of the batch."""

import numpy as np
import pytest
import torch

from tests.conftest import small_values
from tests.test_shared_prefix import able, asked, disable_sharing, images  # noqa: F401  fixtures
from vlm_r1.config import parse_params
from vlm_r1.inference.generate import count_tokens, generate_batch, make_prompts
from vlm_r1.inference.sampling import GumbelNoise, Sampling
from vlm_r1.stats.variance import split_variance

END, PAD = 8, 9
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("tokens", "text", "ends", "expected"),
    [
        ([5, 6, END, PAD], "a b", {END}, (3, False)),
        ([5, 6, 7, 7], "a b c c", {END}, (4, True)),  # the limit of 4
        ([5, 6, 7, END], "a b c", {END}, (4, False)),  # ended with its last token
        ([5, 6, 7, 7], "<answer>1</answer>", {END}, (4, False)),  # done at the tag
        ([5, 6, PAD, PAD], "<answer>1</answer>", {END, PAD}, (2, False)),  # padding is no token
        ([5, PAD, PAD, PAD], "a", {END, PAD}, (2, False)),  # padding token as end of turn
        ([5, 6], "a b", {END}, (2, False)),  # a batch that ended before the limit
    ],
)
def test_tokens_are_counted_up_to_the_end_of_the_answer(tokens, text, ends, expected):
    assert count_tokens(tokens, text, ends, PAD, max_new_tokens=4) == expected


def answers(model, questions, limit=40, rows=None, sampling=None, size=None):
    prompts = make_prompts(model[1], questions)
    rows = list(range(len(prompts))) if rows is None else rows
    found = []
    for start in range(0, len(rows), size or len(rows)):
        part = rows[start : start + (size or len(rows))]
        noise = None if sampling is None else sampling.noise(part, CPU)
        found += generate_batch(*model, [prompts[row] for row in part], limit, noise)
    return found


@pytest.mark.parametrize("template", ["plain", "r1"])
def test_the_count_is_that_of_the_tokenizer(able, images, template, disable_sharing):  # noqa: F811
    """A plain answer ends with an end of turn, which its text does not show; R1's at the tag."""
    questions = asked(images, template)
    found = answers(able, questions)
    assert not any(answer.cut_off for answer in found)
    for answer in found:
        shown = len(able[1].tokenizer(answer.text)["input_ids"])
        assert answer.new_tokens == shown + (not answer.text.endswith("</answer>"))
    cut = answers(able, questions, limit=3)
    assert all(answer.cut_off and answer.new_tokens == 3 for answer in cut)
    disable_sharing()
    assert answers(able, questions) == found
    assert answers(able, questions, limit=3) == cut


def test_noise_makes_the_largest_score_a_draw_from_the_softmax():
    """Logits log(1, 2, 7) at temperature 1: shares .1, .2, .7; at 0.5 their squares' shares."""
    logits = torch.log(torch.tensor([[1.0, 2.0, 7.0]])).expand(4000, 3)
    for temperature, weights in ((1.0, [1, 2, 7]), (0.5, [1, 4, 49])):
        noise = GumbelNoise(Sampling(temperature, 42, 1), list(range(4000)), CPU)
        drawn = noise(torch.zeros(4000, 1), logits).argmax(1)
        shares = torch.bincount(drawn, minlength=3) / 4000
        assert shares.tolist() == pytest.approx(np.array(weights) / sum(weights), abs=0.025)


def test_a_sampled_answer_does_not_depend_on_its_batch(able, images, disable_sharing):  # noqa: F811
    questions = asked(images, "r1")
    sampling = Sampling(1.5, seed=42, repeat=1)
    together = answers(able, questions, sampling=sampling)
    assert answers(able, questions, sampling=sampling, size=2) == together
    assert answers(able, questions, rows=[5, 0], sampling=sampling) == [together[5], together[0]]
    disable_sharing()
    assert answers(able, questions, sampling=sampling) == together


def test_repeats_and_seeds_differ(able, images):  # noqa: F811
    questions = asked(images, "plain")
    found = [
        [answer.text for answer in answers(able, questions, sampling=Sampling(1.5, seed, repeat))]
        for seed, repeat in ((42, 1), (42, 2), (43, 1))
    ]
    assert found[0] != found[1] != found[2] != found[0]


def test_a_low_temperature_is_greedy(able, images):  # noqa: F811
    questions = asked(images, "plain")
    assert answers(able, questions, sampling=Sampling(1e-4, 42, 1)) == answers(able, questions)


def test_the_cache_tells_repeats_temperatures_and_seeds_apart():
    ways = [Sampling(1.0, 42, 1), Sampling(1.0, 42, 2), Sampling(0.5, 42, 1), Sampling(1.0, 43, 1)]
    assert len({way.decoding for way in ways}) == 4
    assert ways[2].decoding == "sampled at temperature 0.5, seed 42, repeat 1, to </answer>"


def test_sampling_is_off_in_the_committed_parameters():
    assert parse_params(small_values(), "small").evaluate.repeats == 0


def test_variance_is_split_within_and_between_questions():
    """Shares 1, 0, .5, .5 of two answers: within 2 * mean(0, 0, .25, .25), between 1/6 - .25/2."""
    found = split_variance(np.array([[1, 1], [0, 0], [1, 0], [1, 0]]))
    assert found == pytest.approx((0.25, 1 / 6 - 0.125))


def test_variance_of_one_answer_a_question_cannot_be_split():
    assert split_variance(np.ones((4, 1))) == (None, None)


def test_the_split_is_unbiased():
    """Half the questions with p .9, half with .3: within (.09 + .21) / 2, between .3 ** 2."""
    rng = np.random.default_rng(0)
    p = np.repeat([0.9, 0.3], 3000)[:, None]
    found = split_variance(rng.random((6000, 4)) < p)
    assert found.within == pytest.approx(0.15, abs=0.006)
    assert found.between == pytest.approx(0.09, abs=0.006)
