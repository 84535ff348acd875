"""The reader of VLM-R1's files: what it accepts, and what it refuses with which message."""

import json
import math
import re

import pytest
from PIL import Image

from vlm_r1.config import DrawnSplit
from vlm_r1.data.readers import read
from vlm_r1.data.readers.base import InputFile
from vlm_r1.data.readers.conversations import bare_expression
from vlm_r1.data.records import BOX
from vlm_r1.data.synthetic.dataset import sample_split, vlm_r1_records
from vlm_r1.errors import DataError
from vlm_r1.rec.boxes import from_original
from vlm_r1.rec.prompts import question_for

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


def write(tmp_path, rows, name="records.json"):
    path = tmp_path / name
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


def lines(*rows):
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)


def read_all(path, dataset="d", role="id"):
    """The records of a file all of whose rows can be read."""
    result = read("vlm-r1", InputFile(path, path.name, dataset, role=role))
    assert result.unread.empty, result.unread.to_dict("records")
    return result.records


def faults(path, **known):
    """(row, fault) of the rows that cannot be read."""
    unread = read("vlm-r1", InputFile(path, path.name, "d", **known)).unread
    assert set(unread["file"]) <= {path.name}
    return list(zip(unread["row"], unread["fault"], strict=True))


def without(key):
    return {k: v for k, v in GOLDEN.items() if k != key}


def test_golden_record_is_read_unchanged(tmp_path):
    records = read_all(write(tmp_path, [GOLDEN]), "refcoco_val", "validation")

    assert records.to_dict("records") == [
        {
            "record_id": "refcoco_val:000005",
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
            "file": "records.json",
            "row": 1,
        }
    ]


def test_golden_box_is_its_normalized_solution_in_the_thousandths(tmp_path):
    records = read_all(write(tmp_path, [GOLDEN]))

    thousand = from_original(records[BOX].to_numpy()[0], "thousand", (640, 427), (640, 427))

    assert [math.floor(v) for v in thousand] == GOLDEN["normalized_solution"]


def test_whole_numbers_and_few_keys_are_enough(tmp_path):
    row = {
        "image": "a.jpg",
        "width": 9,
        "height": 8,
        "problem": question_for("x"),
        "solution": [0, 1, 2, 3],
    }

    records = read_all(write(tmp_path, [row]))

    assert records[BOX].to_numpy().tolist() == [[0.0, 1.0, 2.0, 3.0]]
    assert records.loc[0, "source_id"] == ""
    assert records.loc[0, "record_id"] == "d:row-000001"


def test_bare_expression_is_recovered_from_the_question(tmp_path):
    phrase = 'left guy. with "x" {expression}: '
    row = without("normal_caption") | {"problem": question_for(phrase)}

    assert bare_expression(question_for(phrase)) == phrase
    assert read_all(write(tmp_path, [row])).loc[0, "expression"] == phrase


def test_drawn_records_come_back_in_order(tmp_path):
    drawn = DrawnSplit(world="street", images=5, phrases_per_image=2, detection=False, sizes=None)
    scenes = sample_split("s", drawn, seed=1)
    rows = list(vlm_r1_records("s", scenes))

    records = read_all(write(tmp_path, rows), "s")

    assert records[BOX].to_numpy().tolist() == [row["solution"] for row in rows]
    assert records["expression"].tolist() == [
        text for described in scenes for text in described.expressions
    ]
    assert records["record_id"].is_unique


BAD_ROWS = {
    "no_solution": (without("solution"), "solution: Field required"),
    "no_image": (without("image"), "image: Field required"),
    "no_width": (without("width"), "no width and height, and no image folder"),
    "no_phrase": (
        {k: v for k, v in GOLDEN.items() if k not in ("problem", "normal_caption")},
        "neither normal_caption nor problem",
    ),
    "other_problem": (
        without("normal_caption") | {"problem": "Where is it?"},
        "the question is not the sentence 'Please provide",
    ),
    "three_numbers": (GOLDEN | {"solution": [1, 2, 3]}, "solution: .*at least 4 items"),
    "five_numbers": (GOLDEN | {"solution": [1, 2, 3, 4, 5]}, "solution: .*at most 4 items"),
    "text_number": (
        GOLDEN | {"solution": [1, "2", 3, 4]},
        r"solution\.1: Input should be a valid number \(found '2'\)",
    ),
    "truth_as_number": (GOLDEN | {"solution": [True, 2, 3, 4]}, r"solution\.0: .*valid number"),
    "nan": (GOLDEN | {"solution": [1, 2, 3, math.nan]}, r"solution\.3: .*a finite number"),
    "infinite": (GOLDEN | {"solution": [1, 2, math.inf, 4]}, r"solution\.2: .*a finite number"),
    "null_box": (GOLDEN | {"solution": None}, "solution: Input should be a valid list"),
    "text_width": (GOLDEN | {"width": "427"}, "width: Input should be a valid integer"),
    "no_width_at_all": (GOLDEN | {"width": 0}, "width: .*greater than or equal to 1"),
    "not_an_object": ([1, 2], "Input should be a valid dictionary"),
    "absolute_image": (GOLDEN | {"image": "/data/a.jpg"}, "image: '/data/a.jpg': need a path rel"),
    "climbing_image": (GOLDEN | {"image": "b/../../a.jpg"}, "image: .*need a path relative"),
    "windows_climb": (GOLDEN | {"image": "..\\a.jpg"}, "image: .*need a path relative"),
    "empty_image": (GOLDEN | {"image": ""}, "image: .*need a path relative"),
    "two_images": (
        GOLDEN | {"image": ["a.jpg", "b.jpg"]},
        r"image: 2 images \['a.jpg', 'b.jpg'\]; only rows of one can be read",
    ),
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_returned_as_unread_with_its_number_and_fault(tmp_path, row, message):
    path = write(tmp_path, [GOLDEN, row, GOLDEN])

    ((number, fault),) = faults(path)

    assert number == 2
    assert re.match(message, fault), fault
    assert read("vlm-r1", InputFile(path, "r", "d")).records["row"].tolist() == [1, 3]


def test_further_faults_of_a_row_are_counted(tmp_path):
    row = {k: v for k, v in GOLDEN.items() if k not in ("image", "solution")}

    assert faults(write(tmp_path, [row])) == [(1, "image: Field required (and 1 more faults)")]


def test_lines_are_rows_and_blank_ones_are_skipped(tmp_path):
    path = write(tmp_path, lines(GOLDEN, "", GOLDEN), "records.jsonl")

    assert read_all(path)["row"].tolist() == [1, 3]


def test_broken_line_in_the_middle_is_named_and_the_others_are_read(tmp_path):
    path = write(tmp_path, lines(GOLDEN, '{"image": ', GOLDEN), "records.jsonl")

    ((number, fault),) = faults(path)

    assert (number, fault[:31]) == (2, "broken JSON: EOF while parsing ")
    assert len(read("vlm-r1", InputFile(path, "r", "d")).records) == 2


def test_line_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "records.jsonl"
    good = json.dumps(GOLDEN).encode()
    bad = json.dumps(GOLDEN | {"normal_caption": "café"}, ensure_ascii=False).encode("latin-1")
    path.write_bytes(good + b"\n" + bad + b"\n")

    assert [(row, fault[:20]) for row, fault in faults(path)] == [(2, "not UTF-8: byte 0xe9")]


TALK = {
    "id": 7,
    "image": "a.jpg",
    "width": 60,
    "height": 40,
    "conversations": [
        {"from": "human", "value": f"<image>{question_for('left cup')}"},
        {"from": "gpt", "value": [1, 2, 30.5, 40]},
    ],
}


def answered(value):
    return TALK | {"conversations": [TALK["conversations"][0], {"from": "gpt", "value": value}]}


@pytest.mark.parametrize("answer", [[1, 2, 30.5, 40], "[1, 2, 30.5, 40]"])
@pytest.mark.parametrize("image", ["a.jpg", ["a.jpg"]])
def test_conversation_row_is_a_record(tmp_path, answer, image):
    path = write(tmp_path, lines(answered(answer) | {"image": image}), "records.jsonl")

    (record,) = read_all(path).to_dict("records")

    assert (record["image"], record["expression"]) == ("a.jpg", "left cup")
    assert [record[corner] for corner in BOX] == [1, 2, 30.5, 40]
    assert record["record_id"] == "d:000007"


@pytest.mark.parametrize(
    ("method", "reward"), [("iou", "iou"), ("odLength", "odlength"), ("default", "")]
)
def test_a_rows_own_reward_is_read_by_our_name(tmp_path, method, reward):
    records = read_all(write(tmp_path, [GOLDEN | {"accu_reward_method": method}]))
    assert records.get("accuracy_reward", [""])[0] == reward


def test_a_reward_for_answers_that_are_no_boxes_is_refused(tmp_path):
    ((row, fault),) = faults(write(tmp_path, [GOLDEN | {"accu_reward_method": "llm"}]))
    assert (row, fault[:44]) == (1, "accu_reward_method: 'llm' is none of None, d")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("left", "broken|expected"),
        ([1, 2], "at least 4 items"),
        (5, "valid list"),
        ([[1, 2, 3, 4]], "at least 4 items|valid number"),
    ],
)
def test_conversation_without_a_box_is_named(tmp_path, answer, message):
    ((number, fault),) = faults(write(tmp_path, lines(TALK, answered(answer)), "records.jsonl"))

    assert number == 2
    assert re.search(message, fault), fault


def test_size_that_rows_lack_comes_from_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    row = {k: v for k, v in TALK.items() if k not in ("width", "height")}
    path = write(tmp_path, lines(row, row | {"image": "b.jpg"}), "records.jsonl")

    result = read("vlm-r1", InputFile(path, "r", "d", images=tmp_path))

    assert result.records[["width", "height"]].to_numpy().tolist() == [[40, 60]]
    ((number, fault),) = faults(path, images=tmp_path)
    assert number == 2
    assert fault.endswith("b.jpg: no such file")


BROKEN_FILES = {
    "empty_array": (b"[]", "records.json: no rows"),
    "object": (b'{"a": 1}', "records.json: a JSON object at the top"),
    "text": (b'"a"', "records.json: a JSON string at the top"),
    "empty": (b"", "records.json: broken JSON: EOF .* line 1 column 0"),
    "cut_in_row_2": (b'[{"a": 1},\n {"b": 2, "c"', "records.json: row 2: broken JSON: EOF"),
    "cut_after_row_2": (b'[{"a": 1},\n {"b": 2}', "records.json: row 2: broken JSON: EOF"),
    "broken_in_row_2": (b'[{"a": 1},\n {"b" 2}, {}]', "records.json: row 2: broken JSON: exp"),
    "latin_1_in_row_2": (b'[{"a": 1}, {"b": "\xe9"}]', "row 2: not UTF-8: byte 0xe9 at 18"),
    "utf_16": ("[{}]".encode("utf-16"), "not UTF-8: byte 0xff at 0"),
}


@pytest.mark.parametrize(("raw", "message"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_broken_file_is_refused_with_the_row_in_which_it_breaks(tmp_path, raw, message):
    (tmp_path / "records.json").write_bytes(raw)

    with pytest.raises(DataError, match=message):
        read_all(tmp_path / "records.json")


def test_a_byte_order_mark_is_accepted(tmp_path):
    path = tmp_path / "records.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([GOLDEN]).encode())

    assert len(read_all(path)) == 1


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json: no such file"):
        read_all(tmp_path / "nowhere.json")
