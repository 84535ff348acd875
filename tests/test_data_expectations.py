"""The suite of expectations: each fault is found and named, and the dataset fails."""

import shutil

import pandas as pd
import pytest
from PIL import Image

from tests.dataset_files import records_table
from vlm_r1.config import standalone
from vlm_r1.data.readers.base import UNREAD, ReadResult
from vlm_r1.data.validation.outcome import DatasetUnderValidation
from vlm_r1.data.validation.outcome_files import render_page
from vlm_r1.data.validation.published_counts import PUBLISHED
from vlm_r1.data.validation.suite import suite
from vlm_r1.data.validation.validate import validate_datasets

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
    table = records_table(list(records)).assign(file=f"{name}.json")
    table["row"] = range(1, len(table) + 1)
    rows = ReadResult(table, pd.DataFrame(list(unread), columns=UNREAD, dtype=object))
    return DatasetUnderValidation(name, role, rows, folder, **known)


def outcomes_of(folder, records, bounds=BOUNDS, trained=({"image": "trained.png"},), **known):
    """Outcomes for a training set of one other image and for `records`."""
    datasets = [
        dataset("training", folder, [RECORD | change for change in trained], "train"),
        dataset("tested", folder, records, **known),
    ]
    return validate_datasets(datasets, "training", bounds, folder / "cache/images.sqlite")


def result_of(folder, *records, **known):
    """Content of validation.json for `records`."""
    return outcomes_of(folder, records, **known)["tested"].to_json_dict()


def failures(result):
    return {e["name"]: e for e in result["expectations"] if not e["success"]}


def test_good_records_pass_every_expectation(images):
    result = result_of(images, RECORD, OTHER)

    assert result["verdict"] == "pass"
    assert (result["rows"], result["quarantined"], result["leakage"]) == (2, 0, [])
    assert len(result["expectations"]) == 18
    for expectation in result["expectations"]:
        assert expectation.keys() == {"name", "success", "failed", "examples"}
        assert expectation["success"]
        assert expectation["failed"] == 0
        assert expectation["examples"] == []


FAULTS = {  # expectation -> change of the second record, and the value that is shown
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
    result = result_of(images, RECORD, OTHER | change)

    assert result["verdict"] == "fail"
    assert failures(result).keys() == {name}
    assert failures(result)[name]["failed"] == 1
    assert failures(result)[name]["examples"] == [
        {"file": "tested.json", "row": 2, "id": "d:2", "value": value}
    ]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"x1": 8.0, "x2": 3.0}, "box_left_of_right"),
        ({"y1": 6.0, "y2": 2.0}, "box_top_above_bottom"),
    ],
)
def test_reversed_corners_fail_and_so_does_the_negative_side(images, change, name):
    result = result_of(images, RECORD, OTHER | change)

    assert failures(result).keys() == {name, "box_side"}


@pytest.mark.parametrize("change", [{"x1": -1.0}, {"y1": -1.0}, {"x2": 11.0}, {"y2": 9.0}])
def test_box_outside_any_side_fails(images, change):
    assert failures(result_of(images, OTHER | change)).keys() == {"box_inside_image"}


def test_rounding_to_two_decimals_is_allowed(images):
    assert result_of(images, RECORD | {"x2": 10.005, "y2": 8.000000001})["verdict"] == "pass"


def test_repeated_id_and_repeated_record_show_both_rows(images):
    result = result_of(images, RECORD, OTHER, RECORD)

    assert failures(result).keys() == {"record_id_unique", "record_not_repeated"}
    for failure in failures(result).values():
        assert failure["failed"] == 2
        assert [example["row"] for example in failure["examples"]] == [1, 3]


def test_one_id_with_two_boxes_is_distinguished_from_a_repetition(images):
    result = result_of(images, RECORD, RECORD | {"x2": 9.0})

    assert failures(result).keys() == {"record_id_unique", "id_has_one_box"}


def test_one_annotation_has_one_box_in_its_image_whatever_the_expression(images):
    same = OTHER | {"source_id": "1"}

    assert result_of(images, RECORD, same)["verdict"] == "pass"
    assert result_of(images, RECORD, OTHER | {"x2": 9.0})["verdict"] == "pass"
    failed = failures(result_of(images, RECORD, same | {"x2": 9.0}))
    assert failed.keys() == {"id_has_one_box"}
    assert failed["id_has_one_box"]["failed"] == 2


def test_row_that_could_not_be_read_fails_with_its_fault(images):
    result = result_of(images, RECORD, unread=[("tested.json", 2, "7", "image: Field required")])

    assert result["rows"] == 2
    assert failures(result).keys() == {"row_readable"}
    assert failures(result)["row_readable"]["examples"] == [
        {
            "file": "tested.json",
            "row": 2,
            "id": "7",
            "value": {"fault": "image: Field required"},
        }
    ]


def test_a_share_of_thin_boxes_may_be_allowed_and_is_still_counted(images):
    records = [RECORD | {"record_id": f"d:{i}", "expression": f"{i}"} for i in range(10, 19)]
    records += [OTHER | {"x2": 1.0}]
    bounds = BOUNDS.model_copy(update={"max_degenerate_share": 0.1})

    assert failures(result_of(images, *records)).keys() == {"box_side"}
    allowed = result_of(images, *records, bounds=bounds)
    assert allowed["verdict"] == "pass"
    assert [e["failed"] for e in allowed["expectations"] if e["name"] == "box_side"] == [1]


def test_a_share_of_repeated_records_may_be_allowed(images):
    twice = [RECORD, RECORD | {"record_id": "d:3"}]
    bounds = BOUNDS.model_copy(update={"max_repeated_share": 1.0})

    assert failures(result_of(images, *twice)).keys() == {"record_not_repeated"}
    assert result_of(images, *twice, bounds=bounds)["verdict"] == "pass"


def test_published_counts_are_compared_with_each_split(images, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "tiny", {"val": 1, "test": 2})
    records = [RECORD | {"split": "val"}, OTHER | {"split": "test"}]

    result = result_of(images, *records, published="tiny")

    (failure,) = failures(result).values()
    assert failure["name"] == "split_rows_published"
    assert failure["examples"] == [
        {
            "file": "tested",
            "row": None,
            "id": None,
            "value": {"split": "test", "rows": 1, "published": 2},
        }
    ]


def test_an_image_whose_suffix_is_of_another_format_fails(images):
    Image.open(images / "a.png").save(images / "a.jpg", "PNG")

    failed = failures(result_of(images, RECORD | {"image": "a.jpg"}))

    assert failed.keys() == {"image_suffix"}
    value = failed["image_suffix"]["examples"][0]["value"]
    assert value == {"image": "a.jpg", "suffix_fault": "PNG in a file named a.jpg"}


def test_a_size_from_before_the_exif_turn_is_reported(images):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.open(images / "a.png").save(images / "turned.png", exif=exif)
    turned = RECORD | {"image": "turned.png"}

    upright = turned | {"width": 8, "height": 10, "x2": 8.0}
    assert result_of(images, upright)["verdict"] == "pass"
    assert failures(result_of(images, turned)).keys() == {
        *("stated_width", "stated_height", "exif_orientation")
    }


NO_IMAGES = {
    "folder": ("d.png", lambda path: path.mkdir(), "d.png: a folder"),
    "zero_bytes": ("z.jpg", lambda path: path.touch(), "z.jpg: empty"),
    "text": ("t.png", lambda path: path.write_text("hello"), "t.png: cannot identify image file"),
}


@pytest.mark.parametrize(("name", "make", "fault"), NO_IMAGES.values(), ids=NO_IMAGES)
def test_a_file_that_is_no_image_is_named_with_its_row(images, name, make, fault):
    make(images / name)

    failed = failures(result_of(images, RECORD, OTHER | {"image": name}))

    (example,) = failed["image_opens"]["examples"]
    assert failed.keys() == {"image_opens"}
    assert (example["file"], example["row"]) == ("tested.json", 2)
    assert example["value"]["image_fault"].startswith(fault)


# --- quarantine ------------------------------------------------------------------------------

QUARANTINE = BOUNDS.model_copy(update={"on_failure": "quarantine"})


def test_quarantine_lists_failing_rows_with_all_their_reasons(images):
    unfit = OTHER | {"x2": 1.0, "expression": " "}
    unread = [("tested.json", 3, None, "broken JSON")]

    outcome = outcomes_of(images, [RECORD, unfit], QUARANTINE, unread=unread)["tested"]

    assert outcome.passed
    assert outcome.records["record_id"].tolist() == ["d:1"]
    found = outcome.to_json_dict()
    assert (found["verdict"], found["rows"], found["quarantined"]) == ("pass", 3, 2)
    assert failures(found).keys() == {
        "row_readable",
        "box_side",
        "phrase_not_blank",
        "id_has_one_box",
    } - {"id_has_one_box"}
    first, second = outcome.quarantined
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


def test_quarantine_of_every_row_fails(images):
    outcome = outcomes_of(images, [RECORD | {"expression": " "}], QUARANTINE)["tested"]

    assert not outcome.passed
    assert outcome.failures()[-1] == "no record is left"


def test_a_leak_fails_despite_quarantine_because_an_evaluation_set_is_never_reduced(images):
    outcome = outcomes_of(images, [RECORD, OTHER | {"image": "copy.png"}], QUARANTINE)["tested"]

    assert not outcome.passed
    assert len(outcome.records) == 2


def test_excluded_leaks_leave_the_training_set(images):
    exclude = BOUNDS.model_copy(update={"on_leak": "exclude"})
    trained = [{"image": "trained.png"}, {"image": "a.png", "record_id": "d:9"}]

    outcomes = outcomes_of(images, [OTHER | {"image": "copy.png"}], exclude, trained)

    tested = outcomes["tested"]
    assert tested.passed
    assert len(tested.records) == 1
    assert [leak.against_image for leak in tested.leakage] == ["trained.png"]
    training = outcomes["training"]
    assert training.passed
    assert training.records["image"].tolist() == ["a.png"]
    assert [line["reasons"] for line in training.quarantined] == [["image_not_tested_on"]]
    assert training.to_json_dict()["leakage"] == [
        {
            "image": "trained.png",
            "against": "tested",
            "against_image": "copy.png",
            "by": "bytes",
            "kind": "training",
        }
    ]


def chosen_and_tested(images, bounds, chosen):
    """Outcomes for the validation set `chosen` and two test sets, of trained.png and own.png."""
    Image.effect_noise((10, 8), 70).convert("RGB").save(images / "other.png")
    Image.effect_noise((10, 8), 60).convert("RGB").save(images / "own.png")
    datasets = [
        dataset("training", images, [RECORD | {"image": "other.png"}], "train"),
        dataset("chosen", images, [RECORD | one for one in chosen], "validation"),
        dataset("near", images, [RECORD | {"image": "trained.png"}], "id"),
        dataset("far", images, [RECORD | {"image": "own.png"}], "ood"),
    ]
    return validate_datasets(datasets, "training", bounds, images / "cache/images.sqlite")


CHOSEN = ({"image": "copy.png"}, {"image": "a.png", "record_id": "d:9", "source_id": "9"})


def test_an_image_of_a_test_set_fails_the_validation_set(images):
    outcomes = chosen_and_tested(images, BOUNDS, CHOSEN)

    failed = failures(outcomes["chosen"].to_json_dict())
    assert failed.keys() == {"image_not_chosen_on"}
    assert failed["image_not_chosen_on"]["examples"][0]["value"] == {
        "image": "copy.png",
        "tested_image": "trained.png",
        "tested_by": "bytes",
    }
    assert [name for name, outcome in outcomes.items() if not outcome.passed] == ["chosen"]


def test_excluded_images_of_test_sets_leave_the_validation_set(images):
    exclude = BOUNDS.model_copy(update={"on_leak": "exclude"})

    outcomes = chosen_and_tested(images, exclude, CHOSEN)

    assert all(outcome.passed for outcome in outcomes.values())
    chosen = outcomes["chosen"]
    assert chosen.records["image"].tolist() == ["a.png"]
    assert [line["reasons"] for line in chosen.quarantined] == [["image_not_chosen_on"]]
    assert len(outcomes["near"].records) == 1
    pair = {"against": "near", "against_image": "trained.png", "by": "bytes", "kind": "choice"}
    assert chosen.to_json_dict()["leakage"] == [{"image": "copy.png"} | pair]
    assert [leak.against for leak in outcomes["near"].leakage] == ["chosen"]
    assert outcomes["far"].leakage == outcomes["training"].leakage == []


def test_a_validation_set_of_test_images_alone_fails(images):
    exclude = BOUNDS.model_copy(update={"on_leak": "exclude"})

    outcome = chosen_and_tested(images, exclude, CHOSEN[:1])["chosen"]

    assert outcome.failures()[-1] == "no record is left"


def test_checks_of_a_suite_have_distinct_names():
    names = [
        check.name for check in suite("id", BOUNDS, images_inspected=True, counts_published=True)
    ]
    assert len(set(names)) == len(names) == 19


# --- images and pages ----------------------------------------------------------------------


def test_a_truncated_image_is_named_with_its_fault(images):
    Image.effect_noise((10, 8), 90).save(images / "cut.png")
    whole = (images / "cut.png").read_bytes()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])

    failed = failures(result_of(images, RECORD | {"image": "cut.png"}))

    assert failed.keys() == {"image_opens"}
    fault = failed["image_opens"]["examples"][0]["value"]["image_fault"]
    assert fault.startswith("cut.png: ")
    assert "truncated" in fault


def test_only_the_first_failing_rows_are_shown_but_all_are_counted(images):
    records = [RECORD | {"record_id": f"d:{i}", "x2": 20.0 + i} for i in range(9)]

    failure = failures(result_of(images, *records))["box_inside_image"]

    assert failure["failed"] == 9
    assert [example["row"] for example in failure["examples"]] == [1, 2, 3, 4, 5]


def test_leakage_names_each_image_once_with_its_twin(images):
    leaking = {"image": "copy.png"}

    result = result_of(images, RECORD | leaking, OTHER | leaking)

    assert failures(result)["image_not_trained_on"]["failed"] == 2
    assert result["leakage"] == [
        {
            "image": "copy.png",
            "against": "training",
            "against_image": "trained.png",
            "by": "bytes",
            "kind": "training",
        }
    ]


def test_page_escapes_what_comes_from_the_data(images):
    result = result_of(images, OTHER | {"expression": "<script>alert(1)</script>"})

    page = render_page("tested", result, {"phrase_length": "The phrase is short."})

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "http" not in page
    assert "tested.json" in page
    assert "phrase_length" in page
