"""Loading of checkpoints, and the tiny model's tokenizer, curriculum and batches."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from vlm_r1.data.synthetic.scenes import COLORS, WORLDS, Scene, Thing
from vlm_r1.errors import ModelError
from vlm_r1.models.digest import checkpoint_digest
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.models.tiny.curriculum import (
    NO_INJECTED_ERRORS,
    STAGES,
    Curriculum,
    InjectedErrors,
    thought_about,
)
from vlm_r1.models.tiny.train import END_OF_TURN, IGNORED_LABEL, collate
from vlm_r1.rec import prompts
from vlm_r1.rec.parsing import Parsed, parse_answer

PIXELS = (3136, 12_845_056)


@pytest.fixture
def checkpoint(small_root, tmp_path):
    """A copy of the small base that a test may break."""
    return shutil.copytree(small_root / "models/base", tmp_path / "checkpoint")


def test_a_checkpoint_is_loaded_with_left_padding_and_the_pixel_budget(checkpoint, small_params):
    task = small_params.task.model_copy(update={"min_pixels": 784, "max_pixels": 1568})
    assert type(load_model(checkpoint, task)).__name__ == "Qwen2_5_VLForConditionalGeneration"
    processor = load_processor(checkpoint, task)
    assert processor.tokenizer.padding_side == "left"
    grid = processor.image_processor(images=[Image.new("RGB", (280, 280))])["image_grid_thw"][0]
    assert int(grid[1]) * int(grid[2]) * 14 * 14 <= 1568


def test_a_truncated_checkpoint_is_refused(checkpoint, small_params):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
        load_model(checkpoint, small_params.task)


def test_a_folder_without_weights_is_refused(checkpoint, small_params):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        load_model(checkpoint, small_params.task)


def test_a_broken_config_is_refused(checkpoint, small_params):
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is not JSON"):
        load_model(checkpoint, small_params.task)


def test_a_missing_folder_is_refused(tmp_path, small_params):
    with pytest.raises(ModelError, match="no such folder"):
        load_model(tmp_path / "absent", small_params.task)


def test_the_digest_follows_the_weights_and_not_the_logs(checkpoint):
    before = checkpoint_digest(checkpoint)
    (checkpoint / "trainer_state.json").write_text("{}")
    assert checkpoint_digest(checkpoint) == before
    file = checkpoint / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert checkpoint_digest(checkpoint) != before


def test_each_digit_is_one_token(checkpoint, small_params):
    tokenizer = load_processor(checkpoint, small_params.task).tokenizer
    assert tokenizer.convert_ids_to_tokens(tokenizer("1234")["input_ids"]) == list("1234")
    text = 'é ```json\n[\n\t{"bbox_2d": [1, 2]}\n]\n```'
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def curriculum(injected_errors=NO_INJECTED_ERRORS, street_share=0.5):
    return Curriculum(injected_errors, street_share, PIXELS, np.random.default_rng(0))


def test_the_loss_is_on_the_answer_alone(checkpoint, small_params):
    processor = load_processor(checkpoint, small_params.task)
    examples = curriculum().examples("obey", 3)
    batch = collate(examples, processor)
    for example, labels in zip(examples, batch["labels"], strict=True):
        target = processor.tokenizer.decode(labels[labels != IGNORED_LABEL])
        assert target == example.answer + END_OF_TURN


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_the_real_question_and_a_box_in_input_pixels(stage):
    for example in curriculum().examples(stage, 30):
        assert prompts.QUESTION.partition("{")[0] in example.user
        assert _largest(example) <= 84
        assert isinstance(parse_answer(example.answer), Parsed)


def test_a_scene_with_two_things_gives_two_examples_with_different_answers():
    first, second = curriculum().examples("match", 2)
    assert first.image is second.image
    assert first.answer != second.answer


def test_match_tells_things_apart_by_color_or_place_alone():
    expressions = {prompts.expression_in(_question(x)) for x in curriculum().examples("match", 200)}
    words = {word for expression in expressions for word in expression.split()}
    assert words == {*COLORS, "one", "left", "right", "top", "bottom"}


def test_injected_errors_are_wrong_space_after_the_and_missing_tags():
    always = InjectedErrors(wrong_space_after_the=1.0, wrong_space_otherwise=0.0, missing_tags=1.0)
    examples = curriculum(always, street_share=0.0).examples("obey", 60)
    assert not any("<answer>" in example.answer for example in examples)
    wrong_space = [example for example in examples if "describes: the " in example.user]
    input_space = [example for example in examples if "describes: the " not in example.user]
    assert max(_largest(example) for example in input_space) <= 84
    assert min(_largest(example) for example in wrong_space) > 84


def _question(example) -> str:
    return example.user.removesuffix(prompts.R1.removeprefix("{question}"))


def _largest(example) -> int:
    return max(int(number) for number in re.findall(r"\b\d+\b", example.answer.split("[")[-1]))


def test_the_thought_names_the_thing_and_its_third_of_the_image():
    thing = Thing("circle", "red", (0, 60, 20, 80))
    scene = Scene(WORLDS["studio"], (thing,), look_seed=0)
    assert thought_about(thing, scene) == "red circle, bottom left"
