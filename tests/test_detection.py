"""Several boxes a row: reading, answers, rewards and scores worked by hand, and a small project."""

import json

import numpy as np
import pytest

from tests.conftest import small_values
from vlm_r1.config import METHODS, parse_params
from vlm_r1.data.convert import convert_file
from vlm_r1.data.orientation import upright_records
from vlm_r1.data.readers import read
from vlm_r1.data.readers.base import InputFile
from vlm_r1.data.records import BOX, detects, read_records, records_digest, true_objects
from vlm_r1.errors import DataError
from vlm_r1.evaluation.detection import f1, match_objects, precision_and_recall
from vlm_r1.evaluation.score_text import scores_json
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.export.lmms_eval import export_tasks
from vlm_r1.inference.questions import Completion
from vlm_r1.inference.result import build_result
from vlm_r1.models.families import QWEN2_5_VL
from vlm_r1.paths import REPORT, records_file
from vlm_r1.rec.objects import LabeledBox, hull, objects_text
from vlm_r1.rec.parsing import parse_labeled_boxes, says_none
from vlm_r1.rec.prompts import (
    DETECTION_QUESTION,
    boxes_answer,
    expression_in,
    question_for,
    targets_in,
)
from vlm_r1.rec.results import ResultFile, ResultRow
from vlm_r1.rec.rewards import REWARDS
from vlm_r1.rec.rewards.batch import Batch
from vlm_r1.report.detection import detection_block
from vlm_r1.report.results_table import ResultsTable, make_eval_result
from vlm_r1.training.grpo import grpo_rows
from vlm_r1.training.sft import sft_rows

A, B, C = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (50.0, 50.0, 60.0, 60.0)
HALF = (0.0, 0.0, 10.0, 6.0)  # IoU with A: 0.6


def dogs(*boxes):
    return [LabeledBox(box, "dog") for box in boxes]


def row_of(value, targets="dog, cat", **more):
    """A row of VLM-R1's OVD files about an image of 80 x 60."""
    asked = DETECTION_QUESTION.replace("{targets}", targets)
    turns = [{"from": "human", "value": f"<image>{asked}"}, {"from": "gpt", "value": value}]
    return {"id": 7, "image": "a.jpg", "width": 80, "height": 60, "conversations": turns} | more


def read_all(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return read("vlm-r1", InputFile(path, path.name, "d", role="train"))


# --- text ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "dog"}]', [((1, 2, 3, 4), "dog")]),
        ('{"label": "a \\"b\\"", "bbox_2d": [1, 2, 3, 4]}', [((1, 2, 3, 4), 'a "b"')]),
        (boxes_answer([(A, "dog"), (B, "cat")]), [(A, "dog"), (B, "cat")]),
        ('<think>{"bbox_2d": [9, 9, 9, 9]}</think><answer>[1, 2, 3, 4]</answer>',
         [((1, 2, 3, 4), "")]),
        ('{"label": "dog"} [1, 2, 3, 4]', [((1, 2, 3, 4), "")]),
        ("None", []),
        ("<think>[1, 2, 3, 4]", []),
    ],
)  # fmt: skip
def test_labels_are_those_in_the_braces_of_their_box(completion, expected):
    assert parse_labeled_boxes(completion) == expected


def test_reading_many_unclosed_braces_takes_linear_time():
    assert len(parse_labeled_boxes("{[1, 2, 3, 4]" * 20_000)) == 20_000


@pytest.mark.parametrize(
    ("completion", "nothing"),
    [
        ("None", True),
        ("<think>?</think><answer> none. </answer>", True),
        ("no", False),
        ("", False),
    ],
)
def test_none_is_an_answer(completion, nothing):
    assert says_none(completion) is nothing


def test_the_question_for_targets_is_recognized_however_the_format_is_described():
    asked = question_for("dog, cat", detects=True)
    assert targets_in(asked) == expression_in(asked) == "dog, cat"
    other = asked.partition(" The format")[0] + " Use any format."
    assert targets_in(other) == "dog, cat"
    assert targets_in(question_for("dog, cat")) is None
    assert expression_in(question_for("the dog")) == "the dog"


# --- records -------------------------------------------------------------------------------


def test_a_detection_row_is_a_record_with_all_its_objects(tmp_path):
    answer = boxes_answer([(A, "dog"), (B, "cat")])
    records = read_all(tmp_path / "a.jsonl", [row_of(answer), row_of("None", id=8)]).records
    assert records["expression"].tolist() == ["dog, cat"] * 2
    assert records["objects"].tolist() == [
        objects_text([LabeledBox(A, "dog"), LabeledBox(B, "cat")]),
        "[]",
    ]
    assert records[BOX].to_numpy().tolist() == [[0, 0, 30, 10], [0, 0, 80, 60]]
    assert true_objects(records)[0][1] == LabeledBox(B, "cat")
    assert detects(records) == [True, True]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (
            '[{"bbox_2d": [5, 0, 5, 9], "label": "dog"}]',
            r"object 1: bbox_2d \[5.0, 0.0, 5.0, 9.0\]",
        ),
        ('[{"bbox_2d": [0, 0, 5, 9]}]', "label: Field required"),
        ("a dog", "expected"),
    ],
)
def test_a_detection_row_that_cannot_be_read_is_named(tmp_path, answer, fault):
    unread = read_all(tmp_path / "a.jsonl", [row_of(answer)]).unread
    assert unread["fault"].str.contains(fault, case=False).tolist() == [True]


def test_detection_and_expression_records_are_converted_and_lose_nothing(tmp_path):
    rows = [
        row_of(boxes_answer([(A, "dog")]), accu_reward_method="odLength"),
        {"id": 9, "image": "a.jpg", "width": 80, "height": 60, "solution": [0, 0, 9, 9],
         "problem": question_for("the cat")},
    ]  # fmt: skip
    records = read_all(tmp_path / "a.jsonl", rows).records
    assert records["accuracy_reward"].tolist() == ["odlength", ""]
    for target, name in (("vlm-r1", "b.jsonl"), ("records", "b.parquet"), ("vlm-r1", "c.json")):
        convert_file(tmp_path / "a.jsonl", "vlm-r1", target, tmp_path / name)
    for source, name in (("vlm-r1", "b.jsonl"), ("records", "b.parquet"), ("vlm-r1", "c.json")):
        file = tmp_path / name
        again = read(source, InputFile(file, name, "a", split="")).records
        written = read("vlm-r1", InputFile(tmp_path / "a.jsonl", "a.jsonl", "a", split="")).records
        assert records_digest(again) == records_digest(written)


def test_objects_are_turned_upright_with_their_image(tmp_path):
    from PIL import Image

    image = Image.new("RGB", (40, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter clockwise
    image.save(tmp_path / "a.jpg", exif=exif)
    answer = boxes_answer([((1, 2, 5, 8), "dog")])
    records = read_all(tmp_path / "a.jsonl", [row_of(answer, width=40, height=20)]).records
    turned = upright_records(records, tmp_path)
    assert true_objects(turned)[0] == dogs((12.0, 1.0, 18.0, 5.0))
    assert turned[BOX].to_numpy().tolist() == [[12, 1, 18, 5]]


# --- training ------------------------------------------------------------------------------


def test_sft_is_taught_all_objects_and_grpo_is_judged_by_them(tmp_path, small_params):
    from PIL import Image

    Image.new("RGB", (80, 60)).save(tmp_path / "a.jpg")
    records = read_all(
        tmp_path / "a.jsonl", [row_of(boxes_answer([(A, "dog"), (B, "cat")])), row_of("None")]
    ).records
    task = small_params.task  # boxes in input pixels: 84 x 56 for an image of 80 x 60
    assert QWEN2_5_VL.input_size(60, 80, task) == (56, 84)
    rows = sft_rows(records, tmp_path, task)
    taught = parse_labeled_boxes(rows[0]["completion"][0]["content"])
    assert taught == [((0, 0, 10, 9), "dog"), ((21, 0, 32, 9), "cat")]
    assert rows[1]["completion"][0]["content"] == "None"
    assert rows[0]["prompt"][0]["content"] == question_for("dog, cat", detects=True)
    row = grpo_rows(records, tmp_path, tmp_path, task)[0]
    assert row["true_boxes"] == [list(A), list(B)]
    assert row["true_labels"] == ["dog", "cat"]
    assert row["true_box"] == [0, 0, 30, 10]


def judged(name, text, true):
    """The reward of one completion for labeled true boxes."""
    boxes, labels = [list(box) for box, _ in true], [label for _, label in true]
    batch = Batch([text], [boxes], "original", [(100, 100)], [(100, 100)], [labels])
    return REWARDS[name](batch)[0]


DOG_AND_CAT = [LabeledBox(A, "dog"), LabeledBox(B, "cat")]


@pytest.mark.parametrize(
    ("answered", "mean_ap", "odlength"),
    [
        ([(A, "dog"), (B, "cat")], 1.0, 1.0),
        ([(A, "dog")], 0.5, 0.5),  # of two labels, one is found
        ([(A, "cat"), (B, "dog")], 0.0, 0.0),  # right boxes under wrong labels
        ([(A, "dog"), (B, "cat"), (C, "cow")], 1.0, 2 / 3),  # one box too many
        ([(A, "dog"), (B, "cat"), (C, "dog")], 1.0, 2 / 3),  # a false alarm behind the right one
        ([], 0.0, 0.0),
    ],
)
def test_map_is_the_mean_over_labels_and_odlength_pays_no_long_lists(answered, mean_ap, odlength):
    text = boxes_answer(answered)
    assert judged("map", text, DOG_AND_CAT) == pytest.approx(mean_ap)
    assert judged("odlength", text, DOG_AND_CAT) == pytest.approx(odlength)


def test_none_is_right_and_well_formed_where_nothing_is_there():
    none = "<think>no dog</think><answer>None</answer>"
    assert judged("odlength", none, []) == judged("format", none, []) == 1.0
    assert judged("map", none, []) is None
    assert judged("odlength", boxes_answer([(A, "dog")]), []) == 0.0
    assert judged("format", "None", []) == 0.0
    expression = Batch([none], [[list(A)]], "original", [(9, 9)], [(9, 9)])
    assert REWARDS["format"](expression) == [0.0]


# --- evaluation ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answered", "true", "matched", "weakest"),
    [
        (dogs(A), dogs(A), 1, 1.0),
        (dogs(HALF), dogs(A), 1, 0.6),
        (dogs(HALF, B), dogs(B, A), 2, 0.6),  # the order is of no account
        (dogs(A, C), dogs(A, B), 1, 0.0),
        (dogs(A, B, C), dogs(A, B), 2, 0.0),  # one too many
        ([LabeledBox(A, "cat")], dogs(A), 0, 0.0),
        ([], [], 0, 1.0),
        ([], dogs(A), 0, 0.0),
        (dogs((10.0, 10.0, 0.0, 0.0)), dogs(A), 0, 0.0),  # reversed corners match nothing
    ],
)
def test_matches_worked_by_hand(answered, true, matched, weakest):
    found = match_objects(answered, true)
    assert found[:3] == (matched, len(answered), len(true))
    assert found.weakest == pytest.approx(weakest)


def test_the_matching_is_the_largest_where_greedy_would_lose_one():
    """X overlaps A by 2/3 and Y by 0.82; B overlaps A alone. Taking A for X's best leaves B out."""
    a, b = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 6.0)
    true = dogs((0.0, 0.0, 10.0, 9.0), (0.0, 4.0, 10.0, 10.0))
    assert match_objects(dogs(a, b), true).matched == 2


def test_f1_precision_and_recall_of_counts():
    matches = np.array([[1, 2, 2], [0, 0, 0], [2, 2, 2]])
    assert f1(matches).tolist() == [0.5, 1.0, 1.0]
    assert precision_and_recall(matches) == (3 / 4, 3 / 4)
    assert precision_and_recall(np.zeros((2, 3))) == (0.0, 0.0)


def test_the_hull_is_around_all_boxes_in_whatever_order_their_corners():
    assert hull(np.array([A, [30, 10, 20, 0]])).tolist() == [0, 0, 30, 10]
    assert np.isnan(hull(np.empty((0, 4)))).all()


def result_of(tmp_path, answers):
    """The result of a detection row, a row without objects and an expression, in 0-1000."""
    rows = [
        row_of(boxes_answer([(A, "dog"), (B, "cat")])),
        row_of("None", image="b.jpg"),
        {"id": 9, "image": "c.jpg", "width": 80, "height": 60, "solution": [0, 0, 40, 30],
         "problem": question_for("the cat")},
    ]  # fmt: skip
    records = read_all(tmp_path / "a.jsonl", rows).records
    completions = [Completion(text, (56, 84)) for text in answers]
    meta = {"records": 3, "contract": {"coordinate_space": "thousand"}}
    return build_result(records, completions, "thousand", meta)


def test_rows_of_both_kinds_are_scored_and_the_file_says_the_same(tmp_path):
    right = '[{"bbox_2d": [0, 0, 125, 166], "label": "dog"},'
    right += ' {"bbox_2d": [250, 0, 375, 166], "label": "cat"}]'
    result = result_of(tmp_path, [right, "None", "[0, 0, 500, 500]"])
    assert [row.correct for row in result.results] == [1, 1, 1]
    written = json.loads(result.model_dump_json(exclude_unset=True))["results"]
    assert written[0]["true_objects"][1] == {"bbox_2d": [20.0, 0.0, 30.0, 10.0], "label": "cat"}
    assert written[0]["answered_objects"][0]["bbox_2d"] == pytest.approx([0, 0, 10, 9.96])
    assert written[0]["extracted_answer"] == pytest.approx([0, 0, 30, 9.96])
    assert written[1]["answered_objects"] == []
    assert "true_objects" not in written[2]
    scores = score_results(result)
    assert (scores.accuracy, scores.parse_rate, scores.note) == (100, 1, None)
    assert scores.objects.matches.tolist() == [[2, 2, 2], [0, 0, 0], [1, 1, 1]]


def test_a_row_is_right_only_if_everything_is(tmp_path):
    half = '[{"bbox_2d": [0, 0, 125, 166], "label": "dog"}]'
    result = result_of(tmp_path, [half, half, "nothing"])
    assert [row.correct for row in result.results] == [0, 0, 0]
    scores = score_results(result)
    assert scores.objects.matches.tolist() == [[1, 1, 2], [0, 1, 0], [0, 0, 1]]
    assert scores.unparsed == {"no_box": 1}
    found = scores_json(scores, "a.json")
    assert found["f1"] == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert (found["precision"], found["recall"]) == (1 / 2, 1 / 3)
    assert found["accuracy"] == found["coordinate_space"]["corrected_accuracy"] == 0


def test_boxes_in_another_coordinate_space_are_found_out(tmp_path):
    """Written in pixels, read in thousandths: the boxes around all objects hit only as pixels."""
    result = result_of(tmp_path, [boxes_answer([(A, "dog"), (B, "cat")]), "None", "[0, 0, 40, 30]"])
    scores = score_results(result)
    assert scores.accuracy == pytest.approx(100 / 3)  # of the row without objects
    as_pixels = score_results(result, coordinate_space="original")
    assert as_pixels.accuracy == 100


def answered(method, step, *texts):
    """A result on `ovd`: an image a text, each with two dogs, read in original pixels."""
    rows = [
        ResultRow(
            question=question_for("dog", detects=True),
            ground_truth=(0, 0, 30, 10),
            model_output=text,
            extracted_answer=None,
            correct=0,
            image=f"{i}.png",
            image_size=(100, 100),
            input_size=(100, 100),
            true_objects=[{"bbox_2d": box, "label": "dog"} for box in (A, B)],
        )
        for i, text in enumerate(texts)
    ]
    meta = {"records": len(rows), "contract": {"coordinate_space": "original"}}
    return make_eval_result(
        ResultFile(accuracy=None, results=rows, meta=meta),
        method=method, dataset="ovd", role="ood", step=step, source=f"{method}-{step}.json",
    )  # fmt: skip


def test_the_report_has_the_f1_of_both_methods_and_its_difference():
    both, one = boxes_answer([(A, "dog"), (B, "dog")]), boxes_answer([(A, "dog")])
    results = [answered("sft", 1, one, one, one, "?"), answered("grpo", 1, both, both, both, one)]
    block = detection_block(ResultsTable(results, 0.95))
    sft, grpo = ({line.method: line for line in block.lines}[m] for m in ("sft", "grpo"))
    assert (sft.f1, grpo.f1) == (pytest.approx(100 * 2 / 3 * 3 / 4), pytest.approx(100 * 11 / 12))
    assert (sft.precision, sft.recall, sft.all_right) == (100, pytest.approx(37.5), 0)
    assert (grpo.precision, grpo.recall, grpo.all_right) == (100, pytest.approx(87.5), 75)
    assert grpo.ci_low < grpo.f1 < grpo.ci_high
    (difference,) = block.differences
    assert difference.f1.points == pytest.approx(grpo.f1 - sft.f1)
    assert results[1].correction.hit.tolist() == results[1].scores.hit.tolist()


# --- a small project -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(small_root, tmp_path_factory):
    """Drawn detection data of both worlds, and a drawn split with expressions in training."""
    from vlm_r1.stages import draw, prepare

    values = small_values()
    values["draw"] = {
        name: split | {"detection": True} for name, split in values["draw"].items()
    } | {"phrases": values["draw"]["studio_train"] | {"detection": False}}
    for dataset in values["datasets"].values():
        dataset["accuracy_reward"] = "odlength" if dataset["role"] == "train" else None
    folder = "data/drawn/phrases"
    values["datasets"]["phrases"] = values["datasets"]["studio_train"] | {
        "records": f"{folder}/records.json", "images": folder, "accuracy_reward": "iou",
    }  # fmt: skip
    values["grpo"]["rewards"] = {"odlength": 1.0, "iou": 1.0, "map": 0.5, "format": 1.0}
    values["train"] |= {"steps": 1, "checkpoints": 1}
    params = parse_params(values, "detection")
    root = tmp_path_factory.mktemp("detection")
    draw.run(params, root)
    prepare.run(params, root)
    (root / "models").mkdir()
    (root / "models/base").symlink_to(small_root / "models/base")
    return params, root


def test_drawn_detection_rows_ask_for_all_things_of_some_kinds(project):
    _, root = project
    records = read_records(root / records_file("studio_train"))
    assert len(records) == 12
    assert set(records["accuracy_reward"]) == {"odlength"}
    objects = true_objects(records)
    assert {len(own) for own in objects} >= {0, 1, 2}
    for own, targets in zip(objects, records["expression"], strict=True):
        assert {label for _, label in own} <= set(targets.split(", "))


def test_an_export_to_lmms_eval_refuses_rows_with_several_boxes(project, tmp_path):
    params, root = project
    with pytest.raises(DataError, match="street_test: rows that ask for several boxes"):
        export_tasks(params, root, ["street_test"], ["r1"], tmp_path / "out")


def test_detection_goes_from_drawn_data_to_the_report(project, monkeypatch):
    from tests.conftest import untracked_training
    from vlm_r1.rec.results import read_results
    from vlm_r1.stages import evaluate, prompts, report

    params, root = project
    monkeypatch.setattr("vlm_r1.tracking.after_evaluation", lambda *_: None)
    for method in METHODS:
        untracked_training(params, root, method)
        evaluate.run(params, root, method)
    samples = json.loads((root / "models/grpo/samples/step-0.json").read_text())
    assert {"odlength", "iou", "map", "format"} <= samples[0].keys()
    result = read_results(root / "results/grpo/studio_test/step-1.json")
    assert all(row.true_objects is not None for row in result.results)
    assert result.accuracy == score_results(result).accuracy
    prompts.run(params, root)
    report.run(params, root)
    found = json.loads((root / REPORT / "report.json").read_text())["detection"]
    assert {(line["method"], line["dataset"]) for line in found["lines"]} == {
        (method, dataset) for method in METHODS for dataset in ("studio_test", "street_test")
    }
    assert all(0 <= line["f1"] <= 100 for line in found["lines"])
    assert list((root / REPORT / "gallery").glob("case-*.png"))
    assert "Several boxes a row" in (root / REPORT / "report.html").read_text()
