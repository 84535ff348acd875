"""A training set of several files: order, images in their own folders, rewards by file or row."""

import json

import pytest

from tests.conftest import small_values
from vlm_r1.config import Params, parse_params
from vlm_r1.data.inputs import InputVersion
from vlm_r1.data.records import read_records, records_digest
from vlm_r1.data.training_set import read_training_set
from vlm_r1.errors import ConfigError, DataError
from vlm_r1.experiment import contract_of
from vlm_r1.paths import inputs_file, records_file, version_file
from vlm_r1.stages import draw, prepare, version
from vlm_r1.training.grpo import grpo_rows
from vlm_r1.training.job import load_job


def params_with(**train: dict) -> Params:
    """Small parameters with further datasets, by name: changes of studio_train's keys."""
    values = small_values()
    own = values["datasets"]["studio_train"]
    values["datasets"] |= {name: own | changes for name, changes in train.items()}
    values["draw"]["street_train"] = values["draw"]["street_test"] | {"images": 4}
    values["grpo"]["rewards"] = {"iou": 1.0, "giou": 1.0, "format": 1.0}
    return parse_params(values, "several")


def street(**changes):
    folder = "data/drawn/street_train"
    return {"records": f"{folder}/records.json", "images": folder} | changes


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Params and prepared data: all of studio_train, then 5 rows of a file that is rewarded by giou
    but for its first row.
    """
    params = params_with(street_train=street(sampling="first:5", accuracy_reward="giou"))
    root = tmp_path_factory.mktemp("several")
    (root / "models/base").mkdir(parents=True)  # an empty base: nothing is loaded
    draw.run(params, root)
    file = root / params.datasets["street_train"].records
    rows = json.loads(file.read_text())
    rows[0]["accu_reward_method"] = "iou"
    file.write_text(json.dumps(rows))
    prepare.run(params, root)
    return params, root


def test_one_training_dataset_is_read_as_it_was_prepared(small_params, small_root):
    records, images = read_training_set(small_params, small_root)
    prepared = read_records(small_root / records_file("studio_train"))
    assert records_digest(records) == records_digest(prepared)
    assert images == small_root / "data/drawn/studio_train"


def test_several_datasets_are_one_training_set_in_the_order_of_params(several):
    params, root = several
    records, images = read_training_set(params, root)
    assert records["dataset"].tolist() == ["studio_train"] * 12 + ["street_train"] * 5
    assert records["record_id"].is_unique
    assert images == root / "data/drawn"
    assert records["image"].iloc[-1].startswith("street_train/images/")
    assert all((images / name).is_file() for name in records["image"])
    job = load_job(params, root, "sft")
    assert (len(job.records), job.images) == (17, images)
    assert contract_of(params, root).training_records_digest == records_digest(records)


def test_rows_carry_their_image_and_the_accuracy_reward_of_their_dataset_or_their_own(several):
    params, root = several
    records, images = read_training_set(params, root)
    rows = grpo_rows(records, images, root, params.task)
    assert rows["accuracy_reward"] == [""] * 12 + ["iou"] + ["giou"] * 4
    assert rows[16]["image_path"] == f"data/drawn/{records['image'].iloc[16]}"
    assert rows[16]["image"] == str(images / records["image"].iloc[16])


def test_every_file_of_the_training_set_is_versioned_and_an_input_of_training(several):
    params, root = several
    inputs = json.loads((root / inputs_file("training")).read_text())
    assert {*inputs} == {"studio_train", "street_train"}
    assert InputVersion(**inputs["street_train"]).images == "data/drawn/street_train"
    version.run(params, root, "street_train")
    first = (root / version_file("street_train")).read_text()
    file = root / "data/drawn/street_train/records.json"
    file.write_text(file.read_text() + " ")
    version.run(params, root, "street_train")
    assert (root / version_file("street_train")).read_text() != first


def test_a_test_image_in_the_second_training_file_is_a_leak(tmp_path):
    folder = "data/drawn/street_test"
    params = params_with(more={"records": f"{folder}/records.json", "images": folder})
    draw.run(params, tmp_path)
    with pytest.raises(DataError, match="street_test: image_not_trained_on fails for 12 of 12"):
        prepare.run(params, tmp_path)


@pytest.mark.parametrize(
    ("name", "changes", "fault"),
    [
        ("mine", {"accuracy_reward": "map"}, r"mine\.accuracy_reward 'map' is not in grpo\.rew"),
        (
            "mine",
            {"accuracy_reward": "iou", "role": "ood"},
            "of a dataset of role 'ood'",
        ),
        ("mine", {"sampling": "some:3"}, r"mine\.sampling: .*match pattern"),
    ],
)
def test_a_dataset_that_cannot_be_rewarded_or_sampled_is_refused(name, changes, fault):
    with pytest.raises(ConfigError, match=fault):
        params_with(**{name: changes})
