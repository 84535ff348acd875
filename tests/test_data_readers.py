"""The reader of VLM-R1's JSON: what it takes over, and what it refuses with which words."""

import json
import math

import pytest

from vlm_r1.boxes import from_original
from vlm_r1.config import DrawnSplit
from vlm_r1.data.readers import bare_expression, read_vlm_r1_json
from vlm_r1.data.records import BOX
from vlm_r1.data.worlds import sample_split, vlm_r1_records
from vlm_r1.errors import DataError
from vlm_r1.prompts import question_for

GOLDEN = {  # the layout and numbers of a record of VLM-R1's rec_jsons_processed
    "height": 640,
    "width": 427,
    "id": 5,
    "original_id": 1719310,
    "dataset_name": "refcoco",
    "area": 23813.1,
    "iscrowd": 0,
    "image_id": 581857,
    "category_id": 1,
    "bbox_list": [[103.93, 299.99, 237.15, 476.41]],
    "text_type": "caption",
    "image": "train2014/COCO_train2014_000000581857.jpg",
    "problem": question_for("the lady with the blue shirt"),
    "normal_caption": "the lady with the blue shirt",
    "solution": [103.93, 299.99, 238.15, 477.41],
    "normalized_solution": [243, 468, 557, 745],
}


def write(tmp_path, rows):
    path = tmp_path / "records.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


def without(key):
    return {k: v for k, v in GOLDEN.items() if k != key}


def test_golden_record_is_taken_over_as_it_is(tmp_path):
    frame = read_vlm_r1_json(write(tmp_path, [GOLDEN]), "refcoco_val", "validation")

    assert frame.to_dict("records") == [
        {
            "record_id": "refcoco_val:000001",
            "image": "train2014/COCO_train2014_000000581857.jpg",
            "width": 427,
            "height": 640,
            "expression": "the lady with the blue shirt",
            "x1": 103.93,
            "y1": 299.99,
            "x2": 238.15,
            "y2": 477.41,
            "split": "validation",
            "dataset": "refcoco_val",
            "source_id": "1719310",
        }
    ]


def test_golden_box_is_its_normalized_solution_in_the_thousand_frame(tmp_path):
    frame = read_vlm_r1_json(write(tmp_path, [GOLDEN]), "d", "id")

    thousand = from_original(frame[BOX].to_numpy()[0], "thousand", (640, 427), (640, 427))

    assert [math.floor(v) for v in thousand] == GOLDEN["normalized_solution"]


def test_whole_numbers_and_few_keys_are_enough(tmp_path):
    row = {
        "image": "a.jpg",
        "width": 9,
        "height": 8,
        "problem": question_for("x"),
        "solution": [0, 1, 2, 3],
    }

    frame = read_vlm_r1_json(write(tmp_path, [row]), "d", "ood")

    assert frame[BOX].to_numpy().tolist() == [[0.0, 1.0, 2.0, 3.0]]
    assert frame.loc[0, "source_id"] == ""


def test_bare_expression_is_recovered_from_the_question(tmp_path):
    phrase = 'left guy. with "x" {expression}: '
    row = without("normal_caption") | {"problem": question_for(phrase)}

    assert bare_expression(question_for(phrase)) == phrase
    assert read_vlm_r1_json(write(tmp_path, [row]), "d", "id").loc[0, "expression"] == phrase


def test_drawn_records_come_back_in_order(tmp_path):
    pages = sample_split("s", DrawnSplit(world="street", pictures=5, phrases_per_picture=2), seed=1)
    rows = list(vlm_r1_records("s", pages))

    frame = read_vlm_r1_json(write(tmp_path, rows), "s", "ood")

    assert frame[BOX].to_numpy().tolist() == [row["solution"] for row in rows]
    assert frame["expression"].tolist() == [phrase for page in pages for phrase in page.phrases]
    assert frame["record_id"].is_unique


BAD_ROWS = {
    "no_solution": (without("solution"), "row 2: solution: Field required"),
    "no_image": (without("image"), "row 2: image: Field required"),
    "no_width": (without("width"), "row 2: width: Field required"),
    "no_phrase": (
        {k: v for k, v in GOLDEN.items() if k not in ("problem", "normal_caption")},
        "row 2: Value error, neither normal_caption nor problem",
    ),
    "blank_phrase": (GOLDEN | {"normal_caption": " "}, "row 2: normal_caption: .*an empty phrase"),
    "blank_problem": (
        without("normal_caption") | {"problem": question_for("")},
        "row 2: Value error, an empty phrase",
    ),
    "other_problem": (
        without("normal_caption") | {"problem": "Where is it?"},
        "row 2: Value error, problem is not the sentence 'Please provide",
    ),
    "three_numbers": (GOLDEN | {"solution": [1, 2, 3]}, "row 2: solution: .*at least 4 items"),
    "five_numbers": (GOLDEN | {"solution": [1, 2, 3, 4, 5]}, "row 2: solution: .*at most 4 items"),
    "text_number": (
        GOLDEN | {"solution": [1, "2", 3, 4]},
        "row 2: solution: 1: Input should be a valid number",
    ),
    "nan": (
        GOLDEN | {"solution": [1, 2, 3, math.nan]},
        "row 2: solution: 3: Input should be a finite number",
    ),
    "infinite": (
        GOLDEN | {"solution": [1, 2, math.inf, 4]},
        "row 2: solution: 2: Input should be a finite number",
    ),
    "null_box": (
        GOLDEN | {"solution": None},
        "row 2: solution: Input should be a valid (list|array)",
    ),
    "text_width": (GOLDEN | {"width": "427"}, "row 2: width: Input should be a valid integer"),
    "no_width_at_all": (GOLDEN | {"width": 0}, "row 2: width: .*greater than or equal to 1"),
    "not_an_object": ([1, 2], "row 2: Input should be an object"),
    "absolute_image": (GOLDEN | {"image": "/data/a.jpg"}, "row 2: image: .*need a path relative"),
    "climbing_image": (GOLDEN | {"image": "../a.jpg"}, "row 2: image: .*need a path relative"),
    "empty_image": (GOLDEN | {"image": ""}, "row 2: image: .*need a path relative"),
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_row_is_refused_by_file_and_row(tmp_path, row, message):
    with pytest.raises(DataError, match=f"records.json: {message}"):
        read_vlm_r1_json(write(tmp_path, [GOLDEN, row]), "d", "id")


def test_further_faults_are_counted(tmp_path):
    rows = [without("image"), GOLDEN, without("width"), without("height")]

    with pytest.raises(DataError, match=r"row 1: image: Field required \(and 2 more faults\)"):
        read_vlm_r1_json(write(tmp_path, rows), "d", "id")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "at least 1 item"),
        ("{}", "valid (list|array)"),
        ("[{]", "Invalid JSON"),
        ("", "Invalid JSON"),
    ],
)
def test_file_that_is_no_array_of_records_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=f"records.json: .*{message}"):
        read_vlm_r1_json(write(tmp_path, text), "d", "id")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json: no such file"):
        read_vlm_r1_json(tmp_path / "nowhere.json", "d", "id")
