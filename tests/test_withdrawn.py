"""Profile `withdrawn`: SFT is taught in another frame than it is asked in, and a term says so."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tasks import figure
from tests.conftest import small_values
from tests.training_jobs import weights
from vlm_r1.config import load_params, parse_params
from vlm_r1.data.records import read_records
from vlm_r1.data.synthetic.dataset import sample_split
from vlm_r1.errors import ConfigError, ContractError
from vlm_r1.experiment import contract_of
from vlm_r1.models.families import QWEN2_5_VL
from vlm_r1.paths import records_file
from vlm_r1.rec.boxes import iou, to_original
from vlm_r1.rec.contract import (
    differences,
    evaluation_contract,
    require_equal,
    training_contract,
)
from vlm_r1.stages import base
from vlm_r1.training.job import load_job
from vlm_r1.training.sft import sft_rows

ROOT = Path(__file__).parents[1]
PROFILE = ROOT / "profiles/withdrawn.yaml"
OWN_TERMS = {"coordinate_space": "original", "min_pixels": 3136, "max_pixels": 7056}


@pytest.fixture(scope="module")
def params():
    return load_params(PROFILE)


def contract(params, method):
    return evaluation_contract(training_contract(params, "b", "r", method), params).model_dump()


def with_own_terms(terms=OWN_TERMS):
    values = small_values()
    values["sft"]["own_terms"] = terms
    return parse_params(values, "small")


# --- the terms -----------------------------------------------------------------------------


def test_the_contract_names_the_terms_that_sft_has_of_its_own(params):
    sft, grpo = contract(params, "sft"), contract(params, "grpo")
    assert differences(sft, grpo) == [
        "trained_coordinate_space: 'original' != 'input'",
        "trained_max_pixels: 7056 != 12845056",
    ]
    with pytest.raises(ContractError, match="a and b differ in trained_coordinate_space: 'orig"):
        require_equal({"a": sft, "b": grpo})


def test_without_terms_of_its_own_sft_has_grpos_contract(params):
    fair = params.model_copy(update={"sft": params.sft.model_copy(update={"own_terms": None})})
    assert contract(fair, "sft") == contract(fair, "grpo") == contract(params, "grpo")


def test_training_has_the_own_terms_and_evaluation_the_tasks(small_root):
    params = with_own_terms()
    job = load_job(params, small_root, "sft")
    assert {name: getattr(job.params.task, name) for name in OWN_TERMS} == OWN_TERMS
    assert job.contract.trained_max_pixels == 7056
    asked_under = evaluation_contract(contract_of(params, small_root, "sft"), params)
    assert (asked_under.max_pixels, asked_under.coordinate_space) == (12_845_056, "input")
    assert load_job(params, small_root, "grpo").params.task == params.task


def test_an_own_budget_that_is_upside_down_is_refused():
    with pytest.raises(ConfigError, match=r"sft\.own_terms: .*min_pixels 9000 is above max_pixels"):
        with_own_terms(OWN_TERMS | {"min_pixels": 9000})


# --- the frames, by hand -------------------------------------------------------------------


def taught(params, root, task, folder):
    """The box that SFT is taught for a thing at (49, 0, 77, 28) in an image of 98 x 98."""
    Image.new("RGB", (98, 98)).save(folder / "one.png")
    record = read_records(root / records_file("studio_train")).head(1)
    record = record.assign(x1=49.0, y1=0.0, x2=77.0, y2=28.0, width=98, height=98, image="one.png")
    answer = sft_rows(record, folder, task)[0]["completion"][0]["content"]
    return json.loads(answer.strip("`").removeprefix("json"))[0]["bbox_2d"]


def test_the_trained_frame_and_the_evaluated_frame_of_one_box(params, small_root, tmp_path):
    """98 x 98 pixels are 84 x 84 in SFT's own budget, and 112 x 112 (3.5 x 28, up) in the task's.

    What is at x = 49 in the file is at 42 of what SFT sees, and it is taught to say 49: 7/6 of what
    it sees. In evaluation it sees the thing at 56, and 7/6 of that is 65.3: 57.2 in the file.
    """
    own = params.task_in_training("sft")
    assert taught(params, small_root, own, tmp_path) == [49, 0, 77, 28]
    assert taught(params, small_root, params.task, tmp_path) == [56, 0, 88, 32]
    seen_in_training = QWEN2_5_VL.input_size(98, 98, own)
    seen_in_evaluation = QWEN2_5_VL.input_size(98, 98, params.task)
    assert (seen_in_training, seen_in_evaluation) == ((84, 84), (112, 112))
    said = np.array([56, 0, 88, 32]) * 98 / 84
    read = to_original(said, params.task.coordinate_space, (98, 98), seen_in_evaluation)
    assert read == pytest.approx([49 * 7 / 6, 0, 77 * 7 / 6, 28 * 7 / 6])
    # x 57.17 to 89.83 and y 0 to 32.67 against 49 to 77 and 0 to 28
    overlap = (77 - 57.1667) * 28
    assert iou(read, [49, 0, 77, 28]) == pytest.approx(
        overlap / (32.6667**2 + 28**2 - overlap), 1e-4
    )


def test_a_scale_of_vlm_r1s_misses_small_things_far_from_the_origin_only(params):
    """The same 8 %, 640 x 480 pixels in a budget of 262,144, costs more where images are larger."""
    scale = (640 * 480 / 262_144) ** 0.5
    assert scale == pytest.approx(1.0825, abs=1e-4)
    share = {}
    for name in ("studio_test", "street_test"):
        split = sample_split(name, params.draw[name], seed=1)
        boxes = np.array([t.box for described in split for t in described.scene.things], float)
        share[name] = (iou(scale * boxes, boxes) > 0.5).mean()
    assert share["studio_test"] > 0.9
    assert share["street_test"] < 0.7


# --- the drawn images ----------------------------------------------------------------------


def test_images_take_the_sizes_of_their_split_and_are_larger_out_of_domain(params):
    for name, drawn in params.draw.items():
        scenes = [described.scene for described in sample_split(name, drawn, seed=1)]
        assert {(s.world.width, s.world.height) for s in scenes} == {
            tuple(size) for size in drawn.pictures.sizes
        }
        least, most = drawn.pictures.sides
        sides = [t.box[2] - t.box[0] for s in scenes for t in s.things]
        assert (min(sides), max(sides)) == (least, most)
    inside, outside = (params.draw[n].pictures.sizes for n in ("studio_test", "street_test"))
    assert max(w * h for w, h in inside) < min(w * h for w, h in outside)


def test_things_that_may_not_fit_into_an_image_are_refused():
    values = small_values()
    values["draw"]["studio_val"]["pictures"] = {"sizes": [[84, 60]], "sides": [20, 31]}
    with pytest.raises(ConfigError, match=r"sides \[20, 31\].*half of the shortest image side"):
        parse_params(values, "small")


# --- the base that goes on -----------------------------------------------------------------


def test_a_base_goes_on_from_the_weights_of_another(small_root, tmp_path):
    values = small_values()
    stages = ("locate_steps", "match_steps", "find_steps", "obey_steps")
    values["base"] |= dict.fromkeys(stages, 0) | {"start": str(small_root / "models/base")}
    values["task"]["base_model"] = "models/second"
    base.run(parse_params(values, "small"), tmp_path)
    before, after = weights(small_root / "models/base"), weights(tmp_path / "models/second")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / "models/second/tokenizer.json").exists()


# --- make figure ---------------------------------------------------------------------------


def test_a_work_folder_of_other_parameters_is_refused(tmp_path):
    params = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    target = tmp_path / "models"
    target.mkdir()
    for _ in range(2):  # the second time is a resumed run
        figure.open_folder(tmp_path / "work", params, {"models/base": target})
    assert (tmp_path / "work/models/base").resolve() == target
    assert load_params(tmp_path / "work/params.yaml") == load_params(PROFILE)
    with pytest.raises(ConfigError, match="differs from"):
        figure.open_folder(tmp_path / "work", params | {"sources": ["refgta"]}, {})


def test_every_stage_before_the_report_has_its_place_in_the_figures_run(params):
    values = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    named = [stage.split()[0] for stage, _ in figure.stages_before_report(values)]
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    seeds = {"sft_seed", "grpo_seed", "evaluate_seed"}
    assert set(named) == set(pipeline) - seeds - {"unpack", "report", "register"}
