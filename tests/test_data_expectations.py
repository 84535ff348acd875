"""The suite and stage prepare: each fault is caught, named, and keeps the records back."""

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from vlm_r1.config import DrawnSplit, Validation, load_params
from vlm_r1.data.expectations import Candidate, render_page, validate
from vlm_r1.data.readers import read_vlm_r1_json
from vlm_r1.data.records import read_records, records_frame
from vlm_r1.errors import DataError
from vlm_r1.stages import draw, prepare

RECORD = {
    "record_id": "d:1",
    "image": "a.png",
    "width": 10,
    "height": 8,
    "expression": "left cup",
    "x1": 0.0,
    "y1": 0.0,
    "x2": 10.0,
    "y2": 8.0,
    "split": "id",
    "dataset": "d",
    "source_id": "1",
}
OTHER = RECORD | {"record_id": "d:2", "expression": "right cup"}
BOUNDS = Validation(max_phrase_characters=20, min_box_side_px=2.0)


@pytest.fixture
def pictures(tmp_path):
    Image.new("RGB", (10, 8), "red").save(tmp_path / "a.png")
    Image.new("RGB", (10, 8), "blue").save(tmp_path / "trained.png")
    shutil.copy(tmp_path / "trained.png", tmp_path / "copy.png")
    return tmp_path


def judge(folder, *records):
    """The verdict on `records`, next to a training set of one other picture."""
    training = records_frame([RECORD | {"image": "trained.png"}])
    candidates = [
        Candidate("training", "training.json", folder, training),
        Candidate("tested", "tested.json", folder, records_frame(list(records))),
    ]
    return validate(candidates, "training", BOUNDS)["tested"]


def failures(verdict):
    return {e["name"]: e for e in verdict["expectations"] if not e["success"]}


def test_good_records_pass_every_expectation(pictures):
    verdict = judge(pictures, RECORD, OTHER)

    assert verdict["verdict"] == "pass"
    assert (verdict["rows"], verdict["quarantined"], verdict["leakage"]) == (2, 0, [])
    assert len(verdict["expectations"]) == 13
    assert all(
        e["success"] and e["failed"] == 0 and not e["examples"] for e in verdict["expectations"]
    )


FAULTS = {  # expectation -> what is wrong with the second record, and how it is shown
    "phrase_not_blank": ({"expression": " "}, {"expression": " "}),
    "phrase_length": ({"expression": "x" * 21}, {"expression": "x" * 21}),
    "box_side": ({"x2": 1.5}, {"x1": 0.0, "y1": 0.0, "x2": 1.5, "y2": 8.0}),
    "box_inside_picture": (
        {"y2": 8.02},
        {"x1": 0.0, "y1": 0.0, "x2": 10.0, "y2": 8.02, "width": 10, "height": 8},
    ),
    "picture_opens": (
        {"image": "gone.png"},
        {"image": "gone.png", "picture_fault": "gone.png: no such file"},
    ),
    "stated_width": ({"width": 11}, {"image": "a.png", "width": 11, "picture_width": 10.0}),
    "stated_height": ({"height": 9}, {"image": "a.png", "height": 9, "picture_height": 8.0}),
    "picture_not_trained_on": (
        {"image": "copy.png"},
        {"image": "copy.png", "training_image": "trained.png"},
    ),
}


@pytest.mark.parametrize(("name", "change", "value"), [(k, *v) for k, v in FAULTS.items()])
def test_fault_fails_its_expectation_alone_and_is_shown(pictures, name, change, value):
    verdict = judge(pictures, RECORD, OTHER | change)

    assert verdict["verdict"] == "fail"
    assert failures(verdict).keys() == {name}
    assert failures(verdict)[name]["failed"] == 1
    assert failures(verdict)[name]["examples"] == [
        {"file": "tested.json", "row": 2, "id": "d:2", "value": value}
    ]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"x1": 8.0, "x2": 3.0}, "box_left_of_right"),
        ({"y1": 6.0, "y2": 2.0}, "box_top_above_bottom"),
    ],
)
def test_reversed_corners_fail_beside_the_side_they_make(pictures, change, name):
    verdict = judge(pictures, RECORD, OTHER | change)

    assert failures(verdict).keys() == {name, "box_side"}


@pytest.mark.parametrize("change", [{"x1": -1.0}, {"y1": -1.0}, {"x2": 11.0}, {"y2": 9.0}])
def test_box_outside_any_side_fails(pictures, change):
    assert failures(judge(pictures, OTHER | change)).keys() == {"box_inside_picture"}


def test_unknown_corner_fails_beside_the_order_it_cannot_have(pictures):
    failed = failures(judge(pictures, OTHER | {"x2": math.nan}))

    assert failed.keys() == {"box_known", "box_left_of_right"}
    assert failed["box_known"]["examples"][0]["value"] == {
        "x1": 0.0,
        "y1": 0.0,
        "x2": None,
        "y2": 8.0,
    }


def test_rounding_of_two_decimals_is_no_overhang(pictures):
    assert judge(pictures, RECORD | {"x2": 10.005, "y2": 8.000000001})["verdict"] == "pass"


def test_repeated_id_and_repeated_record_show_both_rows(pictures):
    verdict = judge(pictures, RECORD, OTHER, RECORD)

    assert failures(verdict).keys() == {"record_id_unique", "record_not_repeated"}
    for failure in failures(verdict).values():
        assert failure["failed"] == 2
        assert [example["row"] for example in failure["examples"]] == [1, 3]


def test_truncated_picture_says_what_is_wrong_with_it(pictures):
    Image.effect_noise((10, 8), 90).save(pictures / "cut.png")
    whole = (pictures / "cut.png").read_bytes()
    (pictures / "cut.png").write_bytes(whole[: len(whole) // 2])

    failed = failures(judge(pictures, RECORD | {"image": "cut.png"}))

    assert failed.keys() == {"picture_opens"}
    fault = failed["picture_opens"]["examples"][0]["value"]["picture_fault"]
    assert fault.startswith("cut.png: ")
    assert "truncated" in fault


def test_only_the_first_offenders_are_shown_but_all_are_counted(pictures):
    records = [RECORD | {"record_id": f"d:{i}", "x2": 20.0 + i} for i in range(9)]

    failure = failures(judge(pictures, *records))["box_inside_picture"]

    assert failure["failed"] == 9
    assert [example["row"] for example in failure["examples"]] == [1, 2, 3, 4, 5]


def test_leakage_names_each_picture_once_with_its_twin(pictures):
    leaking = {"image": "copy.png"}

    verdict = judge(pictures, RECORD | leaking, OTHER | leaking)

    assert failures(verdict)["picture_not_trained_on"]["failed"] == 2
    assert verdict["leakage"] == [{"image": "copy.png", "training_image": "trained.png"}]


def test_page_escapes_what_comes_from_the_data(pictures):
    verdict = judge(pictures, OTHER | {"expression": "<script>alert(1)</script>"})

    page = render_page("tested", verdict)

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "http" not in page
    assert "tested.json" in page
    assert "phrase_length" in page


# --- stage prepare -------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    """A project of four tiny drawn datasets; gives its params and root."""
    params = load_params(Path(__file__).parents[1] / "params.yaml")
    drawn = {
        name: DrawnSplit(world=split.world, pictures=3, phrases_per_picture=2)
        for name, split in params.draw.items()
    }
    params = params.model_copy(update={"draw": drawn})
    draw.run(params, tmp_path)
    return params, tmp_path


def prepared(root):
    folder = root / "data/prepared"
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_prepare_writes_three_files_a_dataset_and_the_same_bytes_again(project):
    params, root = project
    prepare.run(params, root)
    first = {name: (root / "data/prepared" / name).read_bytes() for name in prepared(root)}
    prepare.run(params, root)

    assert {name: (root / "data/prepared" / name).read_bytes() for name in prepared(root)} == first
    assert sorted(first) == sorted(
        f"{dataset}/{file}"
        for dataset in params.datasets
        for file in ("records.parquet", "validation.html", "validation.json")
    )
    source = read_vlm_r1_json(
        root / "data/drawn/studio_val/records.json", "studio_val", "validation"
    )
    written = read_records(root / "data/prepared/studio_val/records.parquet")
    pd.testing.assert_frame_equal(written, source)


def test_box_outside_keeps_that_datasets_records_back_and_no_others(project):
    params, root = project
    prepare.run(params, root)
    path = root / "data/drawn/street_test/records.json"
    rows = json.loads(path.read_text())
    rows[3]["solution"][2] = 500.0
    path.write_text(json.dumps(rows))

    with pytest.raises(
        DataError,
        match=r"got street_test: box_inside_picture fails for 1 of 6 records,"
        r" first data/drawn/street_test/records\.json row 4 \{.*\"x2\": 500\.0",
    ):
        prepare.run(params, root)

    assert len(prepared(root)) == 4 * 3 - 1
    assert "street_test/records.parquet" not in prepared(root)
    verdict = json.loads((root / "data/prepared/street_test/validation.json").read_text())
    assert verdict["verdict"] == "fail"
    assert "fail" in (root / "data/prepared/street_test/validation.html").read_text()


def test_every_failing_dataset_is_named(project):
    params, root = project
    (root / "data/drawn/studio_val/images/studio_val_000002.png").unlink()
    twin = root / "data/drawn/studio_train/images/studio_train_000001.png"
    shutil.copy(twin, root / "data/drawn/studio_test/images/studio_test_000003.png")

    with pytest.raises(DataError) as caught:
        prepare.run(params, root)

    assert "studio_val: picture_opens fails for 2 of 6 records, first" in caught.value.got
    assert "studio_test: picture_not_trained_on fails for 2 of 6 records, first" in caught.value.got
    assert "records.json row 5" in caught.value.got
    leakage = json.loads((root / "data/prepared/studio_test/validation.json").read_text())[
        "leakage"
    ]
    assert leakage == [
        {
            "image": "images/studio_test_000003.png",
            "training_image": "images/studio_train_000001.png",
        }
    ]


def test_unreadable_row_leaves_what_was_there(project):
    params, root = project
    prepare.run(params, root)
    before = prepared(root)
    path = root / "data/drawn/studio_val/records.json"
    rows = json.loads(path.read_text())
    del rows[1]["solution"]
    path.write_text(json.dumps(rows))

    with pytest.raises(
        DataError, match=r"studio_val/records\.json: row 2: solution: Field required"
    ):
        prepare.run(params, root)

    assert prepared(root) == before
