"""From questions to a result file: order, batches, early stopping, coordinate spaces, refusals."""

import inspect
import json

import pytest

from tests.conftest import ROOT, small_values
from vlm_r1.config import parse_params
from vlm_r1.data.images import open_image
from vlm_r1.data.records import read_records
from vlm_r1.errors import ContractError, DataError, ModelError
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.experiment import checkpoint_path, contract_of
from vlm_r1.inference import generate as generation
from vlm_r1.inference.generate import generate_completions, make_prompts
from vlm_r1.inference.questions import Completion, Question, question_about
from vlm_r1.inference.result import build_result
from vlm_r1.models.loading import chat_text, load_model, load_processor
from vlm_r1.paths import records_file
from vlm_r1.rec.contract import evaluation_contract


@pytest.fixture(scope="module")
def loaded(small_root, small_params):
    base = small_root / "models/base"
    return load_model(base, small_params.task), load_processor(base, small_params.task)


@pytest.fixture(scope="module")
def able(small_params):
    """The committed base, which has learned to answer and to end its turn."""
    base = ROOT / "models/base"
    return load_model(base, small_params.task).eval(), load_processor(base, small_params.task)


@pytest.fixture(scope="module")
def questions(small_root, small_params) -> list[Question]:
    """Two expressions on each of six images, in the R1 template."""
    records = read_records(small_root / records_file("street_test"))
    images = small_root / small_params.datasets["street_test"].images
    assert len(records) == 2 * records["image"].nunique() == 12
    return [
        question_about("r1", expression, images / image)
        for expression, image in zip(records["expression"], records["image"], strict=True)
    ]


@pytest.fixture(scope="module")
def reference(able, questions) -> list[str]:
    """Completions as transformers documents it: `generate` on one image and text at a time."""
    model, processor = able
    texts = []
    for question in questions:
        inputs = processor(
            text=[chat_text(processor, question.text)],
            images=[open_image(question.image)],
            return_tensors="pt",
        )
        output = model.generate(**inputs, max_new_tokens=48, do_sample=False)
        texts += processor.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
    assert len(set(texts)) > 6
    return texts


@pytest.mark.parametrize("batch_tokens", [1, 400, 100_000])
def test_batching_and_shared_images_change_no_completion(able, questions, reference, batch_tokens):
    answers = generate_completions(*able, questions, batch_tokens, 48)
    assert [answer.text for answer in answers] == reference
    assert {answer.input_size for answer in answers} == {(56, 84)}


def test_an_image_is_encoded_once_for_all_its_expressions(able, questions, monkeypatch):
    model, processor = able
    encoded, encode = [], model.get_image_features

    def note(pixels, grid, **options):
        encoded.append(len(grid))
        return encode(pixels, grid, **options)

    monkeypatch.setattr(model, "get_image_features", note)
    generate_completions(model, processor, questions, 100_000, 4)
    assert encoded == [6]


def test_a_row_stops_at_the_end_of_its_answer(able, questions, reference, monkeypatch):
    """With the end of the thought as stop string: the base writes nothing after its answer."""
    monkeypatch.setattr(generation, "STOP", "</think>")
    steps = count_steps(able[0], monkeypatch)
    answers = [answer.text for answer in generate_completions(*able, questions, 100_000, 48)]
    assert all("</think>" in text for text in reference)
    assert answers == [text.partition("</think>")[0] + "</think>" for text in reference]
    longest = max(len(able[1].tokenizer(text)["input_ids"]) for text in answers)
    assert len(steps) == longest < 48


def test_a_batch_ends_when_all_its_rows_are_done(able, questions, monkeypatch):
    steps = count_steps(able[0], monkeypatch)
    answers = [answer.text for answer in generate_completions(*able, questions, 100_000, 200)]
    assert all(text.endswith("</answer>") for text in answers)
    assert len(steps) == max(len(able[1].tokenizer(text)["input_ids"]) for text in answers)


def count_steps(model, monkeypatch) -> list:
    steps, forward = [], model.forward

    def note(*values, **options):
        steps.append(1)
        return forward(*values, **options)

    note.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(model, "forward", note)
    return steps


def test_a_prompts_token_count_is_that_of_the_processor(able, questions):
    processor, question = able[1], questions[0]
    inputs = processor(
        text=[chat_text(processor, question.text)],
        images=[open_image(question.image)],
        return_tensors="pt",
    )
    assert make_prompts(processor, [question])[0].tokens == inputs["input_ids"].shape[1]


def test_an_expression_with_the_image_token_is_refused(able, questions):
    text = questions[0].text + "<|image_pad|>"
    with pytest.raises(DataError, match="1 image tokens in it"):
        generate_completions(*able, [Question(text, questions[0].image)], 1, 4)


def test_the_prompt_is_qwens_chat_format(loaded):
    assert chat_text(loaded[1], "Where?") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Where?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_missing_image_stops_the_evaluation(loaded, tmp_path):
    question = question_about("plain", "red one", tmp_path / "absent.png")
    with pytest.raises(DataError, match=r"absent\.png"):
        generate_completions(*loaded, [question], 1, 4)


def test_a_result_is_scored_in_original_pixels(small_root):
    """Answers in 84 x 84 input pixels on an 80 x 80 image: hit, miss, no box."""
    records = read_records(small_root / records_file("studio_test")).head(3)
    records = records.assign(x1=40.0, y1=40.0, x2=80.0, y2=80.0)
    texts = ["[42, 42, 84, 84]", "<answer>[0, 0, 42, 42]</answer>", "none"]
    completions = [Completion(text, (84, 84)) for text in texts]
    meta = {"contract": {"coordinate_space": "input"}}
    result = build_result(records, completions, "input", meta)
    assert [row.correct for row in result.results] == [1, 0, 0]
    assert result.results[0].extracted_answer == pytest.approx((40, 40, 80, 80))
    assert result.results[2].extracted_answer is None
    assert result.accuracy == pytest.approx(100 / 3)
    scores = score_results(result)
    assert scores.accuracy == pytest.approx(result.accuracy)
    assert scores.unparsed == {"no_box": 1}


def test_a_checkpoint_of_another_contract_is_not_evaluated(small_root, small_params, tmp_path):
    values = small_values()
    values["experiment"]["seed"] = 7
    other = evaluation_contract(contract_of(parse_params(values, "t"), small_root), small_params)
    folder = small_root / "models/sft/checkpoint-1"
    folder.mkdir(parents=True, exist_ok=True)
    terms = contract_of(small_params, small_root).model_dump()
    (folder / "contract.json").write_text(json.dumps(terms))
    with pytest.raises(ContractError, match="seed: 42 != 7"):
        checkpoint_path(small_params, small_root, "sft", 1, other)
    ours = evaluation_contract(contract_of(small_params, small_root), small_params)
    assert checkpoint_path(small_params, small_root, "sft", 1, ours) == folder


def test_a_checkpoint_without_a_contract_is_not_evaluated(small_root, small_params):
    ours = evaluation_contract(contract_of(small_params, small_root), small_params)
    with pytest.raises(ModelError, match=r"no contract\.json"):
        checkpoint_path(small_params, small_root, "sft", 2, ours)
