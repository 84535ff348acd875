"""Result files: read back as written; faults named by file and row."""

import json

import pytest

from vlm_r1.errors import ResultError
from vlm_r1.rec.results import ResultFile, ResultRow, read_results, write_results

ROW = {
    "question": "Please find: dog.",
    "ground_truth": [1.0, 2.0, 3.0, 4.0],
    "model_output": "[1, 2, 3, 4]",
    "extracted_answer": [1.0, 2.0, 3.0, 4.0],
    "correct": 1,
}


def test_a_file_is_read_back_as_written(tmp_path):
    row = ResultRow(**ROW, image="a.png", input_size=(84, 84), image_size=(80, 80))
    result = ResultFile(accuracy=100.0, results=[row], meta={"step": 5})
    write_results(tmp_path / "deep" / "step-5.json", result)
    assert read_results(tmp_path / "deep" / "step-5.json") == result
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "step-5.json"]


def test_a_log_without_meta_is_read(tmp_path):
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"accuracy": 100.0, "results": [ROW]}))
    assert read_results(path).meta is None


def test_a_broken_row_is_named_by_file_and_row(tmp_path):
    path = tmp_path / "log.json"
    bad = {key: value for key, value in ROW.items() if key != "ground_truth"}
    path.write_text(json.dumps({"accuracy": 0.0, "results": [ROW, bad]}))
    with pytest.raises(ResultError, match=r"log\.json: row 2: ground_truth: Field required"):
        read_results(path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"accuracy": 1}'])
def test_what_is_no_log_is_refused(tmp_path, text):
    path = tmp_path / "log.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=r"log\.json: "):
        read_results(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ResultError, match="no such file"):
        read_results(tmp_path / "absent.json")
