"""Checkpoints at the door, and the tiny model's parts."""

import numpy as np
import pytest

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
    import shutil

    return shutil.copytree(small_root / "models/base", tmp_path / "checkpoint")


def test_a_whole_checkpoint_opens_with_left_padding_and_the_pixel_budget(checkpoint, small_params):
    task = small_params.task.model_copy(update={"min_pixels": 784, "max_pixels": 1568})
    assert type(load_model(checkpoint, task)).__name__ == "Qwen2_5_VLForConditionalGeneration"
    processor = load_processor(checkpoint, task)
    assert processor.tokenizer.padding_side == "left"
    from PIL import Image

    grid = processor.image_processor(images=[Image.new("RGB", (280, 280))])["image_grid_thw"][0]
    assert int(grid[1]) * int(grid[2]) * 14 * 14 <= 1568


def test_a_cut_off_checkpoint_is_refused(checkpoint, small_params):
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


def test_digits_are_tokens_of_their_own(checkpoint, small_params):
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
    for lesson, labels in zip(examples, batch["labels"], strict=True):
        taught = processor.tokenizer.decode(labels[labels != IGNORED_LABEL])
        assert taught == lesson.answer + END_OF_TURN


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_asks_a_real_question_and_gives_a_box_in_the_input_coordinate_space(stage):
    for lesson in curriculum().examples(stage, 30):
        assert prompts.QUESTION.partition("{")[0] in lesson.user
        assert _largest(lesson) <= 84
        assert isinstance(parse_answer(lesson.answer), Parsed)


def test_a_scene_with_two_things_gives_two_lessons_with_different_answers():
    first, second = curriculum().examples("match", 2)
    assert first.image is second.image
    assert first.answer != second.answer


def test_match_tells_things_apart_by_color_or_place_alone():
    phrases = {prompts.expression_in(_question(x)) for x in curriculum().examples("match", 200)}
    words = {word for phrase in phrases for word in phrase.split()}
    assert words == {*COLORS, "one", "left", "right", "top", "bottom"}


def test_the_habits_are_what_they_are_called():
    always = InjectedErrors(wrong_space_after_the=1.0, wrong_space_otherwise=0.0, missing_tags=1.0)
    examples = curriculum(always, street_share=0.0).examples("obey", 60)
    assert not any("<answer>" in lesson.answer for lesson in examples)
    stray = [lesson for lesson in examples if "describes: the " in lesson.user]
    straight = [lesson for lesson in examples if "describes: the " not in lesson.user]
    assert max(_largest(lesson) for lesson in straight) <= 84
    assert min(_largest(lesson) for lesson in stray) > 84


def _question(lesson) -> str:
    return lesson.user.removesuffix(prompts.R1.removeprefix("{question}"))


def _largest(lesson) -> int:
    import re

    return max(int(number) for number in re.findall(r"\b\d+\b", lesson.answer.split("[")[-1]))


def test_the_thought_names_the_thing_and_its_third_of_the_image():
    thing = Thing("circle", "red", (0, 60, 20, 80))
    scene = Scene(WORLDS["studio"], (thing,), look_seed=0)
    assert thought_about(thing, scene) == "red circle, bottom left"
