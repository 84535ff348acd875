"""The suite and stage prepare: each fault is caught, named, and keeps the records back."""

import shutil

import pandas as pd
import pytest
from PIL import Image

from vlm_r1.config import standalone
from vlm_r1.data.readers.base import UNREAD, Reading
from vlm_r1.data.records import records_frame
from vlm_r1.data.validation.outcome import DatasetUnderValidation, render_page, validate
from vlm_r1.data.validation.published_counts import PUBLISHED
from vlm_r1.data.validation.suite import suite

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
OTHER = RECORD | {"record_id": "d:2", "expression": "right cup", "source_id": "2"}
BOUNDS = standalone.VALIDATION.model_copy(
    update={"max_phrase_characters": 20, "min_box_side_px": 2.0}
)


@pytest.fixture
def images(tmp_path):
    for name, color in (("a.png", "red"), ("trained.png", "blue")):
        noise = Image.effect_noise((10, 8), 90 if color == "red" else 80)
        Image.merge("RGB", [noise, noise, noise]).save(tmp_path / name)
    shutil.copy(tmp_path / "trained.png", tmp_path / "copy.png")
    return tmp_path


def dataset(name, folder, records, role="id", unread=(), **known):
    frame = records_frame(list(records)).assign(file=f"{name}.json")
    frame["row"] = range(1, len(frame) + 1)
    reading = Reading(frame, pd.DataFrame(list(unread), columns=UNREAD, dtype=object))
    return DatasetUnderValidation(name, role, reading, folder, **known)


def judge_both(folder, records, bounds=BOUNDS, trained=({"image": "trained.png"},), **known):
    """Verdicts on a training set of one other image and on `records`."""
    datasets = [
        dataset("training", folder, [RECORD | change for change in trained], "train"),
        dataset("tested", folder, records, **known),
    ]
    return validate(datasets, "training", bounds, folder / "cache/images.sqlite")


def judge(folder, *records, **known):
    """What validation.json says of `records`."""
    return judge_both(folder, records, **known)["tested"].to_json_dict()


def failures(verdict):
    return {e["name"]: e for e in verdict["expectations"] if not e["success"]}


def test_good_records_pass_every_expectation(images):
    verdict = judge(images, RECORD, OTHER)

    assert verdict["verdict"] == "pass"
    assert (verdict["rows"], verdict["quarantined"], verdict["leakage"]) == (2, 0, [])
    assert len(verdict["expectations"]) == 18
    for expectation in verdict["expectations"]:
        assert expectation.keys() == {"name", "success", "failed", "examples"}
        assert expectation["success"]
        assert expectation["failed"] == 0
        assert expectation["examples"] == []


FAULTS = {  # expectation -> what is wrong with the second record, and how it is shown
    "phrase_not_blank": ({"expression": " "}, {"expression": " "}),
    "phrase_length": ({"expression": "x" * 21}, {"expression": "x" * 21}),
    "box_side": ({"x2": 1.5}, {"x1": 0.0, "y1": 0.0, "x2": 1.5, "y2": 8.0}),
    "box_inside_image": (
        {"y2": 8.02},
        {"x1": 0.0, "y1": 0.0, "x2": 10.0, "y2": 8.02, "width": 10, "height": 8},
    ),
    "image_opens": (
        {"image": "gone.png"},
        {"image": "gone.png", "image_fault": "gone.png: no such file"},
    ),
    "stated_width": ({"width": 11}, {"image": "a.png", "width": 11, "image_width": 10}),
    "stated_height": ({"height": 9}, {"image": "a.png", "height": 9, "image_height": 8}),
    "image_not_trained_on": (
        {"image": "copy.png"},
        {"image": "copy.png", "against_image": "trained.png", "by": "bytes"},
    ),
    "split_known": ({"split": "tset"}, {"split": "tset"}),
}


@pytest.mark.parametrize(("name", "change", "value"), [(k, *v) for k, v in FAULTS.items()])
def test_fault_fails_its_expectation_alone_and_is_shown(images, name, change, value):
    verdict = judge(images, RECORD, OTHER | change)

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
def test_reversed_corners_fail_beside_the_side_they_make(images, change, name):
    verdict = judge(images, RECORD, OTHER | change)

    assert failures(verdict).keys() == {name, "box_side"}


@pytest.mark.parametrize("change", [{"x1": -1.0}, {"y1": -1.0}, {"x2": 11.0}, {"y2": 9.0}])
def test_box_outside_any_side_fails(images, change):
    assert failures(judge(images, OTHER | change)).keys() == {"box_inside_image"}


def test_rounding_of_two_decimals_is_no_overhang(images):
    assert judge(images, RECORD | {"x2": 10.005, "y2": 8.000000001})["verdict"] == "pass"


def test_repeated_id_and_repeated_record_show_both_rows(images):
    verdict = judge(images, RECORD, OTHER, RECORD)

    assert failures(verdict).keys() == {"record_id_unique", "record_not_repeated"}
    for failure in failures(verdict).values():
        assert failure["failed"] == 2
        assert [example["row"] for example in failure["examples"]] == [1, 3]


def test_one_id_with_two_boxes_is_told_apart_from_a_repetition(images):
    verdict = judge(images, RECORD, RECORD | {"x2": 9.0})

    assert failures(verdict).keys() == {"record_id_unique", "id_has_one_box"}


def test_one_annotation_has_one_box_in_its_image_whatever_is_said_of_it(images):
    same = OTHER | {"source_id": "1"}

    assert judge(images, RECORD, same)["verdict"] == "pass"
    assert judge(images, RECORD, OTHER | {"x2": 9.0})["verdict"] == "pass"
    failed = failures(judge(images, RECORD, same | {"x2": 9.0}))
    assert failed.keys() == {"id_has_one_box"}
    assert failed["id_has_one_box"]["failed"] == 2


def test_row_that_could_not_be_read_fails_with_its_fault(images):
    verdict = judge(images, RECORD, unread=[("tested.json", 2, "7", "image: Field required")])

    assert verdict["rows"] == 2
    assert failures(verdict).keys() == {"row_readable"}
    assert failures(verdict)["row_readable"]["examples"] == [
        {
            "file": "tested.json",
            "row": 2,
            "id": "7",
            "value": {"fault": "image: Field required"},
        }
    ]


def test_a_share_of_thin_or_repeated_boxes_may_be_allowed_and_is_still_counted(images):
    records = [RECORD | {"record_id": f"d:{i}", "expression": f"{i}"} for i in range(10, 19)]
    records += [OTHER | {"x2": 1.0}]
    bounds = BOUNDS.model_copy(update={"max_degenerate_share": 0.1})

    assert failures(judge(images, *records)).keys() == {"box_side"}
    allowed = judge(images, *records, bounds=bounds)
    assert allowed["verdict"] == "pass"
    assert [e["failed"] for e in allowed["expectations"] if e["name"] == "box_side"] == [1]


def test_a_share_of_repeated_records_may_be_allowed(images):
    twice = [RECORD, RECORD | {"record_id": "d:3"}]
    bounds = BOUNDS.model_copy(update={"max_repeated_share": 1.0})

    assert failures(judge(images, *twice)).keys() == {"record_not_repeated"}
    assert judge(images, *twice, bounds=bounds)["verdict"] == "pass"


def test_published_counts_are_held_against_each_split(images, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "tiny", {"val": 1, "test": 2})
    records = [RECORD | {"split": "val"}, OTHER | {"split": "test"}]

    verdict = judge(images, *records, published="tiny")

    (failure,) = failures(verdict).values()
    assert failure["name"] == "split_rows_published"
    assert failure["examples"] == [
        {
            "file": "tested",
            "row": None,
            "id": None,
            "value": {"split": "test", "rows": 1, "published": 2},
        }
    ]


def test_image_of_another_format_than_its_suffix_fails(images):
    Image.open(images / "a.png").save(images / "a.jpg", "PNG")

    failed = failures(judge(images, RECORD | {"image": "a.jpg"}))

    assert failed.keys() == {"image_suffix"}
    value = failed["image_suffix"]["examples"][0]["value"]
    assert value == {"image": "a.jpg", "suffix_fault": "PNG in a file named a.jpg"}


def test_size_before_the_exif_turn_is_told(images):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.open(images / "a.png").save(images / "turned.png", exif=exif)
    turned = RECORD | {"image": "turned.png"}

    upright = turned | {"width": 8, "height": 10, "x2": 8.0}
    assert judge(images, upright)["verdict"] == "pass"
    assert failures(judge(images, turned)).keys() == {
        *("stated_width", "stated_height", "exif_frame")
    }


NO_IMAGES = {
    "folder": ("d.png", lambda path: path.mkdir(), "d.png: a folder"),
    "zero_bytes": ("z.jpg", lambda path: path.touch(), "z.jpg: empty"),
    "text": ("t.png", lambda path: path.write_text("hello"), "t.png: cannot identify image file"),
}


@pytest.mark.parametrize(("name", "make", "fault"), NO_IMAGES.values(), ids=NO_IMAGES)
def test_what_is_no_image_fails_by_file_and_row(images, name, make, fault):
    make(images / name)

    failed = failures(judge(images, RECORD, OTHER | {"image": name}))

    (example,) = failed["image_opens"]["examples"]
    assert failed.keys() == {"image_opens"}
    assert (example["file"], example["row"]) == ("tested.json", 2)
    assert example["value"]["image_fault"].startswith(fault)


# --- what is set aside -----------------------------------------------------------------------

QUARANTINE = BOUNDS.model_copy(update={"on_failure": "quarantine"})


def test_quarantine_sets_unfit_rows_aside_with_all_their_reasons(images):
    unfit = OTHER | {"x2": 1.0, "expression": " "}
    unread = [("tested.json", 3, None, "broken JSON")]

    verdict = judge_both(images, [RECORD, unfit], QUARANTINE, unread=unread)["tested"]

    assert verdict.passed
    assert verdict.records["record_id"].tolist() == ["d:1"]
    found = verdict.to_json_dict()
    assert (found["verdict"], found["rows"], found["quarantined"]) == ("pass", 3, 2)
    assert failures(found).keys() == {
        "row_readable",
        "box_side",
        "phrase_not_blank",
        "id_has_one_box",
    } - {"id_has_one_box"}
    first, second = verdict.set_aside
    assert (first["file"], first["row"], first["id"]) == ("tested.json", 2, "d:2")
    assert first["reasons"] == ["phrase_not_blank", "box_side"]
    assert first["record"]["x2"] == 1.0
    assert second == {
        "file": "tested.json",
        "row": 3,
        "id": None,
        "reasons": ["row_readable"],
        "fault": "broken JSON",
    }


def test_quarantine_of_everything_is_no_pass(images):
    verdict = judge_both(images, [RECORD | {"expression": " "}], QUARANTINE)["tested"]

    assert not verdict.passed
    assert verdict.failures()[-1] == "no record is left"


def test_leak_is_no_matter_of_quarantine_because_a_test_set_stays_whole(images):
    verdict = judge_both(images, [RECORD, OTHER | {"image": "copy.png"}], QUARANTINE)["tested"]

    assert not verdict.passed
    assert len(verdict.records) == 2


def test_excluded_leaks_leave_the_training_set(images):
    exclude = BOUNDS.model_copy(update={"on_leak": "exclude"})
    trained = [{"image": "trained.png"}, {"image": "a.png", "record_id": "d:9"}]

    verdicts = judge_both(images, [OTHER | {"image": "copy.png"}], exclude, trained)

    tested = verdicts["tested"]
    assert tested.passed
    assert len(tested.records) == 1
    assert [leak.against_image for leak in tested.leakage] == ["trained.png"]
    training = verdicts["training"]
    assert training.passed
    assert training.records["image"].tolist() == ["a.png"]
    assert [line["reasons"] for line in training.set_aside] == [["image_not_tested_on"]]
    assert training.to_json_dict()["leakage"] == [
        {"image": "trained.png", "against": "tested", "against_image": "copy.png", "by": "bytes"}
    ]


def test_checks_of_one_suite_have_names_of_their_own():
    names = [check.name for check in suite("id", BOUNDS, True, True)]
    assert len(set(names)) == len(names) == 19


# --- images and pages ----------------------------------------------------------------------


def test_truncated_image_says_what_is_wrong_with_it(images):
    Image.effect_noise((10, 8), 90).save(images / "cut.png")
    whole = (images / "cut.png").read_bytes()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])

    failed = failures(judge(images, RECORD | {"image": "cut.png"}))

    assert failed.keys() == {"image_opens"}
    fault = failed["image_opens"]["examples"][0]["value"]["image_fault"]
    assert fault.startswith("cut.png: ")
    assert "truncated" in fault


def test_only_the_first_offenders_are_shown_but_all_are_counted(images):
    records = [RECORD | {"record_id": f"d:{i}", "x2": 20.0 + i} for i in range(9)]

    failure = failures(judge(images, *records))["box_inside_image"]

    assert failure["failed"] == 9
    assert [example["row"] for example in failure["examples"]] == [1, 2, 3, 4, 5]


def test_leakage_names_each_image_once_with_its_twin(images):
    leaking = {"image": "copy.png"}

    verdict = judge(images, RECORD | leaking, OTHER | leaking)

    assert failures(verdict)["image_not_trained_on"]["failed"] == 2
    assert verdict["leakage"] == [
        {
            "image": "copy.png",
            "against": "training",
            "against_image": "trained.png",
            "by": "bytes",
        }
    ]


def test_page_escapes_what_comes_from_the_data(images):
    verdict = judge(images, OTHER | {"expression": "<script>alert(1)</script>"})

    page = render_page("tested", verdict, {"phrase_length": "The phrase is short."})

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "http" not in page
    assert "tested.json" in page
    assert "phrase_length" in page
