"""evaluation/log_rows.py, box_formats.py: other tools' boxes, names and answers."""

import json

import pytest

from vlm_r1.errors import ConfigError, ResultError
from vlm_r1.evaluation.box_formats import BoxFormats, as_corners, parse_xywh
from vlm_r1.evaluation.log_rows import ABSENT, look_up
from vlm_r1.evaluation.prediction_logs import score_file
from vlm_r1.export.lmms_eval_task import process_results
from vlm_r1.rec.parsing import Parsed, Unparsed

XYWH = BoxFormats("xywh", "xywh")
# A true box 10 wide and 20 high at (100, 50), as corner and size and as corners
AS_XYWH, AS_XYXY = [100, 50, 10, 20], [100, 50, 110, 70]
FIELDS = ["truth=gt", "completion=pred"]


def write(folder, rows, name="log.jsonl"):
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_corner_and_size_become_corners():
    assert tuple(as_corners(AS_XYWH, "xywh")) == tuple(AS_XYXY)
    assert as_corners(AS_XYXY, "xyxy") == AS_XYXY


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("[100, 50, 10, 20]", Parsed((100, 50, 110, 70), "unit", "text", 1)),
        ("<answer>[1, 2, 3, 4] [5, 6, 7, 8]</answer>", Parsed((1, 2, 4, 6), "unit", "answer", 2)),
        ("<think>[1, 2, 3, 4]</think> nothing", Unparsed("no_box")),
        ("[1, 2, 0, 4]", Unparsed("reversed_corners")),
        (" ", Unparsed("empty")),
    ],
)
def test_completions_with_corner_and_size_are_read(text, read):
    assert parse_xywh(text, "unit") == read


@pytest.mark.parametrize("answer", [f"It is at {AS_XYWH}.", AS_XYWH, [AS_XYWH]])
def test_one_format_holds_for_truth_and_answer(tmp_path, answer):
    path = write(tmp_path, [{"gt": AS_XYWH, "pred": answer}])
    scores = score_file(path, FIELDS, box_formats=XYWH).scores
    assert (scores.true_boxes.tolist(), scores.boxes.tolist()) == ([AS_XYXY], [AS_XYXY])


@pytest.mark.parametrize(
    ("formats", "row"),
    [
        (BoxFormats(truth="xywh"), {"gt": AS_XYWH, "pred": str(AS_XYXY)}),
        (BoxFormats(answer="xywh"), {"gt": AS_XYXY, "pred": str(AS_XYWH)}),
    ],
)
def test_truth_and_answer_may_differ_in_format(tmp_path, formats, row):
    assert score_file(write(tmp_path, [row]), FIELDS, box_formats=formats).scores.accuracy == 100


def test_a_true_box_that_is_a_size_names_the_option(tmp_path):
    path = write(tmp_path, [{"gt": AS_XYWH, "pred": str(AS_XYWH)}])
    with pytest.raises(ResultError, match="--box-format xywh reads corner and size"):
        score_file(path, FIELDS)


def test_a_stated_accuracy_is_explained_by_answers_as_size(tmp_path):
    rows = [{"gt": AS_XYXY, "pred": str(AS_XYWH), "correct": 1}]
    scores = score_file(write(tmp_path, rows), FIELDS).scores
    assert scores.accuracy == 0
    assert "preset standard, boxes as xywh in coordinate space original gives" in scores.note


def test_our_own_files_are_corners_whatever_is_asked(tmp_path):
    row = {"question": "q", "ground_truth": AS_XYXY, "model_output": str(AS_XYXY)}
    row |= {"extracted_answer": None, "correct": 1}
    content = {
        "accuracy": 100.0,
        "results": [row],
        "meta": {"contract": {"coordinate_space": "original"}},
    }
    path = write(tmp_path, [content], "own.json")
    assert score_file(path, box_formats=XYWH).scores.accuracy == 100


@pytest.mark.parametrize(("preset", "repair"), [("mar2025", False), (None, True)])
def test_presets_of_corners_do_not_read_sizes(tmp_path, preset, repair):
    path = write(tmp_path, [{"gt": AS_XYWH, "pred": str(AS_XYWH)}])
    with pytest.raises(ConfigError, match="need preset standard, without repair"):
        score_file(path, FIELDS, preset, repair=repair, box_formats=XYWH)


def test_names_with_slashes_reach_inside_and_may_have_dots():
    content = {"doc": {"v1.0": {"boxes": [[1], [2]]}}, "a/b": 5}
    assert look_up(content, "doc/v1.0/boxes/1") == [2]
    assert look_up(content, "a/b") == 5
    assert look_up({"a": {"b": 3}}, "a.b") == 3
    assert look_up(content, "doc/v1") is ABSENT


@pytest.mark.parametrize("space", [None, "original"])
@pytest.mark.parametrize("prose", ["I see no such thing.", [], None, [1, 2, 3], ["a", 1, 2, 3]])
def test_an_answer_without_a_box_is_wrong_beside_answers_that_are_boxes(tmp_path, space, prose):
    rows = [{"gt": AS_XYXY, "pred": AS_XYXY}, {"gt": AS_XYXY, "pred": prose}]
    scores = score_file(write(tmp_path, rows), FIELDS, coordinate_space=space).scores
    assert (scores.hit.tolist(), scores.parse_rate) == ([True, False], 0.5)


def test_a_row_may_lack_the_box_field_that_others_have(tmp_path):
    rows = [{"gt": AS_XYXY, "found": AS_XYXY}, {"gt": AS_XYXY}, {"gt": AS_XYXY, "found": "none"}]
    scores = score_file(write(tmp_path, rows), ["truth=gt", "box=found"]).scores
    assert scores.hit.tolist() == [True, False, False]
    with pytest.raises(ResultError, match="row 1: found: no such field"):
        score_file(write(tmp_path, rows[1:2]), ["truth=gt", "box=found"])


def sample(**values):
    """A line of lmms-eval's sample log, as version 0.7.3 writes it."""
    return {
        "doc_id": 0,
        "target": str(AS_XYXY),
        "filtered_resps": f"[{AS_XYXY}]",
        "doc_hash": "f00",
        "input": "Where is it?",
    } | values


def test_sample_logs_of_lmms_eval_need_no_fields(tmp_path):
    rows = [sample(), sample(doc_id=1, filtered_resps=["nowhere"])]
    log = score_file(write(tmp_path, rows))
    assert (log.scores.accuracy, log.scores.reading) == (50.0, "standard")
    assert [row.record_id for row in log.result.results] == [0, 1]
    assert log.result.results[0].question == "Where is it?"


def test_a_field_overrides_what_a_sample_log_is_known_to_hold(tmp_path):
    rows = [sample(target="a cat", refcoco_IoU={"bbox": AS_XYXY})]
    assert score_file(write(tmp_path, rows), ["truth=refcoco_IoU/bbox"]).scores.accuracy == 100
    with pytest.raises(ResultError, match="row 1: ground_truth"):
        score_file(write(tmp_path, rows))


def test_several_answers_to_one_question_are_refused(tmp_path):
    rows = [sample(filtered_resps=["[1, 2, 3, 4]", "none"])]
    with pytest.raises(ResultError, match="row 1: 2 answers") as error:
        score_file(write(tmp_path, rows))
    assert "--field completion=NAME/0" in str(error.value)
    assert score_file(write(tmp_path, rows), ["completion=filtered_resps/1"]).scores.accuracy == 0


def test_rows_of_our_exported_tasks_are_taken_whole(tmp_path):
    doc = {"question": "q", "ground_truth": AS_XYXY, "image": "a.png", "record_id": "set:7"}
    doc |= {"image_size": [200, 400], "input_size": [100, 200], "coordinate_space": "input"}
    row = process_results(doc, ["[50, 25, 55, 35]"])  # half of the true box, as its image is
    log = score_file(write(tmp_path, [sample(**row)]))
    assert (log.scores.accuracy, log.scores.stated_accuracy) == (100, 100)
    assert (log.scores.reading, log.scores.coordinate_space) == ("standard", "input")
    assert log.result.results[0].record_id == "set:7"
    assert score_file(write(tmp_path, [sample(**row)]), preset="mar2025").scores.accuracy == 100
