"""evaluation/logs.py: logs of other tools, and files that are none."""

import json

import pytest

from vlm_r1.errors import ConfigError, ResultError
from vlm_r1.evaluation.prediction_logs import parse_fields, read_log, score_file

ROW = {
    "question": "q",
    "ground_truth": [0, 0, 10, 10],
    "model_output": "[0, 0, 10, 10]",
    "extracted_answer": [0, 0, 10, 10],
    "correct": 1,
}
OTHER = {"gt_bbox": [0, 0, 10, 10], "pred": "I think [0, 0, 10, 10].", "w": 20, "h": 40}
FIELDS = ["truth=gt_bbox", "completion=pred"]


def write(folder, text, name="log.json"):
    path = folder / name
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.json", json.dumps([OTHER, OTHER])),
        ("log.json", json.dumps({"results": [OTHER, OTHER]})),
        ("log.jsonl", f"{json.dumps(OTHER)}\n{json.dumps(OTHER)}\n"),
        ("log.txt", f"{json.dumps(OTHER)}\n\n{json.dumps(OTHER)}"),
        ("log.json", "\ufeff" + json.dumps([OTHER, OTHER])),
    ],
)
def test_a_list_an_object_and_lines_are_read_alike(tmp_path, name, content):
    log = score_file(write(tmp_path, content, name), FIELDS)
    assert (log.scores.n, log.scores.accuracy, log.scores.reading) == (2, 100.0, "standard")
    assert log.scores.stated_accuracy is None


def test_names_reach_inside_and_a_name_with_a_dot_comes_first(tmp_path):
    row = {"doc": {"box": [0, 0, 10, 10]}, "resps": [["[0, 0, 10, 10]"]], "doc.id": 7}
    fields = ["rows=logs.all", "truth=doc.box", "completion=resps.0.0", "id=doc.id"]
    path = write(tmp_path, {"logs": {"all": [row]}, "score": 100})
    log = score_file(path, [*fields, "accuracy=score"])
    assert (log.scores.accuracy, log.scores.stated_accuracy) == (100.0, 100.0)
    assert log.result.results[0].record_id == 7


def test_a_coordinate_space_needs_sizes_that_the_fields_tell(tmp_path):
    path = write(tmp_path, [OTHER | {"pred": "[0, 0, 0.5, 0.25]"}])
    with pytest.raises(
        ResultError, match=r"log\.json: row 1: no image_size .* coordinate space unit needs"
    ):
        score_file(path, FIELDS, coordinate_space="unit")
    log = score_file(path, [*FIELDS, "width=w", "height=h"], coordinate_space="unit")
    assert (log.scores.accuracy, log.scores.coordinate_space) == (100.0, "unit")


def test_a_tool_may_write_boxes_in_place_of_text(tmp_path):
    rows = [OTHER | {"pred": box} for box in ([0.0, 0.0, 500.0, 250.0], [], None)]
    path = write(tmp_path, rows)
    log = score_file(path, [*FIELDS, "width=w", "height=h"], coordinate_space="thousand")
    assert (log.scores.reading, log.scores.boxes[0].tolist()) == ("logged", [0, 0, 10, 10])
    assert log.scores.unparsed == {"logged_without_box": 2}


def test_flags_of_rows_are_a_statement(tmp_path):
    rows = [OTHER | {"ok": flag} for flag in (True, True, False, True)]
    log = score_file(write(tmp_path, rows), [*FIELDS, "correct=ok"])
    assert log.scores.stated_accuracy == 75.0
    assert log.scores.note.startswith("the file states 75.00 %, its rows score 100.00 %")


def test_vlm_r1s_own_layout_needs_no_fields(tmp_path):
    log = score_file(write(tmp_path, {"accuracy": 100.0, "results": [ROW]}))
    assert (log.scores.reading, log.scores.stated_accuracy) == ("logged", 100.0)
    assert log.name.endswith("log.json")


def test_another_tools_meta_is_not_taken_for_ours(tmp_path):
    path = write(tmp_path, {"results": [OTHER], "meta": {"tool": "x"}})
    assert score_file(path, FIELDS).result.meta is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the file is empty"),
        ("  \n", "the file is empty"),
        ("[]", "a file without rows"),
        ('{"results": []}', "a file without rows"),
        ("3", "a bare int"),
        ('{"rows": []}', "no list of rows under 'results', but 'rows'"),
        ("[1]", "row 1: not an object"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path, text, fault):
    with pytest.raises(ResultError, match=rf"log\.json: {fault}"):
        score_file(write(tmp_path, text))


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_a_file_cut_short_is_told_so(tmp_path, kept):
    text = json.dumps({"accuracy": 100.0, "results": [ROW] * 20})
    with pytest.raises(ResultError, match=r"log\.json: not JSON: EOF .*\(the file is cut short\)"):
        score_file(write(tmp_path, text[: int(kept * len(text))]))


def test_a_line_cut_short_is_told_by_its_number(tmp_path):
    text = f"{json.dumps(OTHER)}\n{json.dumps(OTHER)[:-9]}"
    with pytest.raises(ResultError, match=r"log\.jsonl: line 2: not JSON: EOF"):
        score_file(write(tmp_path, text, "log.jsonl"), FIELDS)


@pytest.mark.parametrize("key", ["ground_truth", "extracted_answer"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_none_is_refused_with_its_row(tmp_path, key, number):
    broken = json.dumps(ROW | {key: [0, 0, 10, "#"]}).replace('"#"', number)
    path = write(tmp_path, f'{{"accuracy": 0, "results": [{json.dumps(ROW)}, {broken}]}}')
    with pytest.raises(ResultError, match=rf"log\.json: row 2: {key}\.3: Input should be a finite"):
        score_file(path)


@pytest.mark.parametrize("lacking", ["gt_bbox", "pred"])
def test_a_row_without_its_field_is_named_with_what_it_has(tmp_path, lacking):
    row = {key: value for key, value in OTHER.items() if key != lacking}
    match = rf"log\.json: row 2: {lacking}: no such field among .*'w', 'h'"
    with pytest.raises(ResultError, match=match):
        score_file(write(tmp_path, [OTHER, row]), FIELDS)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ResultError, match="no such file"):
        read_log(tmp_path / "absent.json")
    with pytest.raises(ResultError, match="is a directory"):
        read_log(tmp_path)


@pytest.mark.parametrize("entry", ["truth", "truth=", "box_2d=x", "=x"])
def test_a_field_is_role_and_name(entry):
    with pytest.raises(ConfigError, match=f"--field {entry}\nneed ROLE=NAME with a role of rows,"):
        parse_fields([entry])
