"""Profile `withdrawn`: SFT is taught in another frame than it is asked in, and a term says so."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tasks import figure
from tests.conftest import small_values
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
    assert differences(sft, grpo) == ["trained_coordinate_space: 'original' != 'input'"]
    with pytest.raises(ContractError, match="a and b differ in trained_coordinate_space: 'orig"):
        require_equal({"a": sft, "b": grpo})


def test_the_contract_names_a_budget_of_its_own_too():
    small = with_own_terms(OWN_TERMS | {"coordinate_space": "input"})
    found = differences(contract(small, "sft"), contract(small, "grpo"))
    assert found == ["trained_max_pixels: 7056 != 12845056"]


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


def taught(side, params, root, task, folder):
    """The box that SFT is taught for a thing at (52, 13, 78, 39) in an image of side x side."""
    Image.new("RGB", (side, side)).save(folder / "one.png")
    record = read_records(root / records_file("studio_train")).head(1)
    box = {"x1": 52.0, "y1": 13.0, "x2": 78.0, "y2": 39.0}
    record = record.assign(**box, width=side, height=side, image="one.png")
    answer = sft_rows(record, folder, task)[0]["completion"][0]["content"]
    return json.loads(answer.strip("`").removeprefix("json"))[0]["bbox_2d"]


def test_the_trained_frame_and_the_evaluated_frame_of_one_box(params, small_root, tmp_path):
    """91 x 91 pixels are seen as 84 x 84, by SFT in training and by all in evaluation.

    A thing at x = 52 in the file is seen at 48, and SFT is taught to say 52: 13/12 of what it sees.
    In evaluation what it says is taken for what is seen, and turned into the file's pixels again.
    """
    own = params.task_in_training("sft")
    assert taught(91, params, small_root, own, tmp_path) == [52, 13, 78, 39]
    assert taught(91, params, small_root, params.task, tmp_path) == [48, 12, 72, 36]
    seen = QWEN2_5_VL.input_size(91, 91, params.task)
    assert seen == QWEN2_5_VL.input_size(91, 91, own) == (84, 84)
    read = to_original([52, 13, 78, 39], params.task.coordinate_space, (91, 91), seen)
    assert read == pytest.approx([side * 13 / 12 for side in (52, 13, 78, 39)])
    # x 56.33 to 84.5 and y 14.08 to 42.25 against 52 to 78 and 13 to 39
    overlap = (78 - 56.3333) * (39 - 14.0833)
    union = 28.1667**2 + 26**2 - overlap
    assert iou(read, [52, 13, 78, 39]) == pytest.approx(overlap / union, 1e-4)


def test_a_budget_of_sfts_own_moves_a_box_by_what_it_shrinks(small_root, tmp_path):
    """98 x 98 pixels are 84 x 84 in SFT's own budget, 112 x 112 (up from 3.5 x 28) in the task's.

    What is at x = 52 of 98 is at 44.6 of 84, where SFT is taught to say 52: 7/6 of what it sees.
    """
    params = with_own_terms()
    own = params.task_in_training("sft")
    assert QWEN2_5_VL.input_size(98, 98, own) == (84, 84)
    assert QWEN2_5_VL.input_size(98, 98, params.task) == (112, 112)
    assert taught(98, params, small_root, own, tmp_path) == [52, 13, 78, 39]
    assert taught(98, params, small_root, params.task, tmp_path) == [59, 15, 89, 45]


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
            tuple(size) for size in drawn.sizes.images
        }
        least, most = drawn.sizes.objects
        sides = [t.box[2] - t.box[0] for s in scenes for t in s.things]
        assert (min(sides), max(sides)) == (least, most)
    inside, outside = (params.draw[n].sizes.images for n in ("studio_test", "street_test"))
    assert max(w * h for w, h in inside) < min(w * h for w, h in outside)


def test_objects_that_may_not_fit_into_an_image_are_refused():
    values = small_values()
    values["draw"]["studio_val"]["sizes"] = {"images": [[84, 60]], "objects": [20, 31]}
    with pytest.raises(ConfigError, match=r"objects \[20, 31\].*half of the shortest image side"):
        parse_params(values, "small")


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
    searched = {"search", "candidate_sft", "candidate_grpo"}  # the profile searches nothing
    elsewhere = searched | {
        "sft_seed",
        "grpo_seed",
        "evaluate_seed",
        "unpack",
        "base",
        "report",
        "register",
    }
    assert set(named) == set(pipeline) - elsewhere
