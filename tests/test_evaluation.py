"""From questions to a result file: order, batches, frames, and what is refused."""

import json

import pytest

from tests.conftest import small_values
from vlm_r1.config import parse_params
from vlm_r1.contract import evaluation_contract
from vlm_r1.data.records import read_records
from vlm_r1.errors import ContractError, DataError, ModelError
from vlm_r1.evaluation.generation import Completion, ask_all, question_about
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.evaluation.unit import build_result
from vlm_r1.models.chat import chat_text
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.paths import records_file
from vlm_r1.stages.evaluate import checkpoint_path
from vlm_r1.stages.terms import contract_of


@pytest.fixture(scope="module")
def loaded(small_root, small_params):
    base = small_root / "models/base"
    return load_model(base, small_params.task), load_processor(base, small_params.task)


def test_answers_come_in_the_order_of_the_questions_whatever_the_batches(
    loaded, small_root, small_params
):
    records = read_records(small_root / records_file("street_test"))
    images = small_root / small_params.datasets["street_test"].images
    questions = [
        question_about("r1", phrase, images / image)
        for phrase, image in zip(records["expression"], records["image"], strict=True)
    ]
    one_by_one = [ask_all(*loaded, [question], 1, 6)[0] for question in questions]
    assert ask_all(*loaded, questions, 5, 6) == one_by_one
    assert {answer.input_size for answer in one_by_one} == {(56, 84)}


def test_the_prompt_is_qwens_chat_format(loaded):
    assert chat_text(loaded[1], "Where?") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Where?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_missing_picture_stops_the_evaluation(loaded, tmp_path):
    question = question_about("plain", "red one", tmp_path / "absent.png")
    with pytest.raises(DataError, match=r"absent\.png"):
        ask_all(*loaded, [question], 1, 4)


def test_a_result_is_scored_in_original_pixels(small_root):
    """84 x 84 answers on an 80 x 80 picture: hit, miss, no box."""
    records = read_records(small_root / records_file("studio_test")).head(3)
    records = records.assign(x1=40.0, y1=40.0, x2=80.0, y2=80.0)
    texts = ["[42, 42, 84, 84]", "<answer>[0, 0, 42, 42]</answer>", "none"]
    completions = [Completion(text, (84, 84)) for text in texts]
    meta = {"contract": {"frame": "input"}}
    result = build_result(records, completions, "input", meta)
    assert [row.correct for row in result.results] == [1, 0, 0]
    assert result.results[0].extracted_answer == pytest.approx((40, 40, 80, 80))
    assert result.results[2].extracted_answer is None
    assert result.accuracy == pytest.approx(100 / 3)
    scores = score_results(result)
    assert scores.accuracy == pytest.approx(result.accuracy)
    assert scores.unparsed == {"no_box": 1}


def test_a_checkpoint_of_other_terms_is_not_evaluated(small_root, small_params, tmp_path):
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


def test_a_checkpoint_without_terms_is_not_evaluated(small_root, small_params):
    ours = evaluation_contract(contract_of(small_params, small_root), small_params)
    with pytest.raises(ModelError, match=r"no contract\.json"):
        checkpoint_path(small_params, small_root, "sft", 2, ours)
