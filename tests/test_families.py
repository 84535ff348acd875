"""Another model family: its coordinate space and resize; training, answers and rewards work."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.glm4v.image_processing_glm4v import Glm4vImageProcessor
from transformers.models.glm46v.image_processing_glm46v import Glm46VImageProcessor
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
from transformers.models.smolvlm.image_processing_smolvlm import SmolVLMImageProcessor

from tests.conftest import small_values
from tests.families import INTERNVL_TILE_PX, write_tiny_internvl, write_tiny_qwen3_vl
from tests.training_jobs import job_of, train, weights
from vlm_r1.config import parse_params
from vlm_r1.data.images import open_image
from vlm_r1.data.records import read_records
from vlm_r1.errors import ModelError
from vlm_r1.inference.generate import generate_completions
from vlm_r1.inference.questions import Question
from vlm_r1.models.families import FAMILIES, family_of
from vlm_r1.models.loading import load_model, load_processor
from vlm_r1.paths import records_file
from vlm_r1.preflight.probes import Sample, model_checks, processor_checks
from vlm_r1.rec import prompts
from vlm_r1.rec.parsing import box_in_original, parse_answer
from vlm_r1.rec.rewards import REWARDS
from vlm_r1.training.grpo import grpo_rows
from vlm_r1.training.sft import sft_rows

QWEN3 = FAMILIES["qwen3_vl"]


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen3")
    write_tiny_qwen3_vl(folder)
    return folder


@pytest.fixture(scope="module")
def internvl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("internvl")
    write_tiny_internvl(folder)
    return folder


@pytest.fixture(params=["qwen3", "internvl"])
def other(request):
    """The folder of a tiny model of another family."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def thousand():
    """Params for a family that writes boxes in 0-1000; at most four tiles of InternVL's and one."""
    values = small_values()
    values["task"] |= {"coordinate_space": "thousand", "max_pixels": 5 * INTERNVL_TILE_PX**2}
    for method in ("sft", "grpo"):
        values[method]["learning_rate"] = 0.01
    return parse_params(values, "thousand")


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_familys_modules_exist_at_their_paths(model_type):
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(model_type))
    family = family_of(model_type)
    for module in (family.vision, family.language, *family.projector):
        assert model.model.get_submodule(module) is not None


def test_an_unknown_family_is_refused():
    with pytest.raises(ModelError, match=r"got a model of type 'llava'(.|\n)*families\.py"):
        family_of("llava")


def test_a_family_resizes_to_multiples_of_its_own_square(qwen3, thousand):
    image = Image.new("RGB", (130, 90))
    processor = load_processor(qwen3, thousand.task)
    _, rows, columns = processor.image_processor([image])["image_grid_thw"][0]
    assert (rows * 16, columns * 16) == QWEN3.input_size(90, 130, thousand.task) == (96, 128)
    assert FAMILIES["qwen2_5_vl"].input_size(90, 130, thousand.task) == (84, 140)


def test_sft_targets_and_grpo_rewards_use_thousandths(small_root, thousand, qwen3):
    """Studio images are 80 x 80: half a side is 500 of 1000, whatever the resize."""
    records = read_records(small_root / records_file("studio_train")).head(1)
    records = records.assign(x1=0.0, y1=0.0, x2=40.0, y2=20.0, expression="red one")
    images = small_root / thousand.datasets["studio_train"].images
    answer = sft_rows(records, images, thousand.task, QWEN3)[0]["completion"][0]["content"]
    assert '"bbox_2d": [0, 0, 500, 250]' in answer
    row = grpo_rows(records, images, small_root, thousand.task, QWEN3)[0]
    assert row["input_size"] == [64, 64]  # 80 is two and a half squares
    box = box_in_original(parse_answer(answer, "thousand"), row["image_size"], row["input_size"])
    assert box.tolist() == row["true_box"] == [0, 0, 40, 20]


def test_boxes_in_the_unit_space_are_written_with_three_decimals(small_root):
    values = small_values()
    values["task"]["coordinate_space"] = "unit"
    params = parse_params(values, "unit")
    records = read_records(small_root / records_file("studio_train")).head(1)
    records = records.assign(x1=0.0, y1=10.0, x2=40.0, y2=20.0, expression="red one")
    images = small_root / params.datasets["studio_train"].images
    answer = sft_rows(records, images, params.task)[0]["completion"][0]["content"]
    assert '"bbox_2d": [0.0, 0.125, 0.5, 0.25]' in answer


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_both_methods_train_another_family(
    small_root, thousand, other, tmp_path, method, monkeypatch
):
    monkeypatch.setitem(REWARDS, "iou", lambda batch: [float(len(t) % 3) for t in batch.texts])
    job = job_of(method, thousand, small_root, tmp_path)
    train(type(job)(**{**vars(job), "base": other}))
    before, after = weights(other), weights(tmp_path / "checkpoint-2")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert json.loads((tmp_path / "cost.json").read_text())["prompts"] == 4


def test_another_familys_batched_completions_equal_single_ones(other, thousand, image):
    model, processor = load_model(other, thousand.task), load_processor(other, thousand.task)
    asked = [
        Question(prompts.fill_template("plain", prompts.question_for(expression)), image)
        for expression in ("red one", "the small blue circle on the left")
    ]
    together = generate_completions(model, processor, asked, batch_tokens=1000, max_new_tokens=6)
    alone = [generate_completions(model, processor, [one], 1000, 6)[0] for one in asked]
    assert together == alone
    tiled = family_of(model.config.model_type).square_px is None
    assert {answer.input_size for answer in together} == {(60, 90) if tiled else (64, 96)}


def test_a_wide_image_is_three_tiles_of_internvl_and_is_answered_as_a_whole(
    internvl, thousand, image
):
    """90 x 60 is cut into two tiles of 56 px beside each other, and shown once as a thumbnail."""
    processor = load_processor(internvl, thousand.task)
    inputs = processor(text=["<|image_pad|>"], images=[[open_image(image)]], return_tensors="pt")
    assert inputs["pixel_values"].shape == (3, 3, INTERNVL_TILE_PX, INTERNVL_TILE_PX)
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == 3 * 4
    sample = Sample(open_image(image), "red one")
    checks = processor_checks(processor, FAMILIES["internvl"], thousand.task, sample)
    checks |= model_checks(load_model(internvl, thousand.task), processor, thousand.task, sample)
    assert {name: check() for name, check in checks.items()}["image tokens"] == (
        "12 tokens, as many features"
    )


def image_of(width, height):
    return Image.fromarray(np.zeros((height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("max_pixels", "tiles"), [(200_000, 1), (700_000, 3), (2_000_000, 9)])
def test_internvl_keeps_the_pixel_budget_in_tiles(thousand, max_pixels, tiles):
    processor = GotOcr2ImageProcessor(size={"height": 448, "width": 448})
    task = thousand.task.model_copy(update={"max_pixels": max_pixels})
    FAMILIES["internvl"].set_budget(processor, task)
    values = processor([image_of(3000, 3000)], return_tensors="pt")["pixel_values"]
    assert len(values) <= tiles
    assert len(values) * 448 * 448 <= max(max_pixels, 448 * 448)


@pytest.mark.parametrize("image_processor", [Glm4vImageProcessor, Glm46VImageProcessor])
@pytest.mark.parametrize(("width", "height"), [(130, 90), (3000, 2000), (30, 30)])
def test_glm_keeps_the_pixel_budget_of_a_still_image(thousand, image_processor, width, height):
    """Its own numbers are areas over two frames, that a still image is repeated for."""
    family, processor = FAMILIES["glm4v"], image_processor()
    task = thousand.task.model_copy(update={"max_pixels": 400_000})
    family.set_budget(processor, task)
    grid = processor([image_of(width, height)], return_tensors="pt")["image_grid_thw"][0]
    rows, columns = (int(side) * processor.patch_size for side in grid[1:])
    assert (rows, columns) == family.input_size(height, width, task)
    assert task.min_pixels <= rows * columns <= task.max_pixels


@pytest.mark.parametrize("max_pixels", [300_000, 1_000_000, 4_000_000])
def test_smolvlm_keeps_the_pixel_budget_in_squares(thousand, max_pixels):
    processor = SmolVLMImageProcessor()
    task = thousand.task.model_copy(update={"max_pixels": max_pixels})
    FAMILIES["smolvlm"].set_budget(processor, task)
    values = processor([[image_of(2000, 1500)]], return_tensors="pt")["pixel_values"]
    assert values[0].numel() / 3 <= max_pixels
