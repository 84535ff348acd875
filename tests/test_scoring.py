"""evaluation/scoring.py: the two readings of a row, and what a file's statement is worth."""

import numpy as np
import pytest

from vlm_r1.errors import ResultError
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.evaluation.statistics import Resampling
from vlm_r1.results import ResultFile, ResultRow

TRUTH = (0.0, 0.0, 10.0, 10.0)
HIT = '{"bbox_2d": [0, 0, 10, 10]}'
MISS = '{"bbox_2d": [50, 50, 60, 60]}'


def row(output: str, extracted: tuple | None, question: str = "a cup", **more) -> ResultRow:
    return ResultRow(
        question=question,
        ground_truth=TRUTH,
        model_output=output,
        extracted_answer=extracted,
        correct=0,
        **more,
    )


def log(rows: list[ResultRow], accuracy: float) -> ResultFile:
    return ResultFile(accuracy=accuracy, results=rows)


def own(rows: list[ResultRow], accuracy: float, frame: str) -> ResultFile:
    return ResultFile(accuracy=accuracy, results=rows, meta={"contract": {"frame": frame}})


def test_a_log_without_meta_is_read_as_logged():
    """Its own extraction may be stricter than our parser: here it took no box from a hit."""
    rows = [row(HIT, TRUTH)] * 39 + [row(HIT, (0, 0, 0, 0))]
    scores = score_results(log(rows, accuracy=97.5))
    assert (scores.reading, scores.accuracy, scores.note) == ("logged", 97.5, None)
    assert scores.unparsed == {"logged_without_box": 1}
    assert scores.parse_rate == 39 / 40
    assert np.isnan(scores.boxes[-1]).all()


def test_a_broken_extraction_is_flagged_and_the_completions_are_scored():
    rows = [row(HIT, (500, 500, 900, 900)), row(MISS, (500, 500, 900, 900))]
    scores = score_results(log(rows, accuracy=0.0))
    assert (scores.reading, scores.accuracy) == ("parsed", 50.0)
    assert "the boxes it extracted score 0.0 %, but its completions score 50.0 %" in scores.note


def test_our_own_files_are_parsed_in_the_frame_of_their_contract():
    """[0, 0, 28, 28] of a picture shown at 28 x 28 is all of its 10 x 10 original pixels."""
    answer = '{"bbox_2d": [0, 0, 28, 28]}'
    sized = row(answer, (0, 0, 1, 1), image="a.png", input_size=(28, 28), image_size=(10, 10))
    scores = score_results(own([sized], accuracy=100.0, frame="input"))
    assert (scores.reading, scores.accuracy, scores.mean_iou) == ("parsed", 100.0, 1.0)
    assert scores.boxes.tolist() == [[0, 0, 10, 10]]
    assert scores.pictures.tolist() == ["a.png"]


def test_unparsed_rows_are_counted_by_reason_and_score_nothing():
    rows = [row(text, None) for text in (HIT, "", "no idea", "none")]
    scores = score_results(own(rows, accuracy=25.0, frame="original"))
    assert scores.unparsed == {"empty": 1, "no_box": 2}
    assert (scores.accuracy, scores.mean_iou, scores.parse_rate) == (25.0, 0.25, 0.25)


def test_a_statement_that_does_not_hold_is_noted():
    scores = score_results(log([row(HIT, TRUTH), row(MISS, (50, 50, 60, 60))], accuracy=75.0))
    assert scores.accuracy == 50.0
    assert scores.note.startswith("the file states 75.00 %, its rows score 50.00 %")


def test_a_row_without_the_sizes_of_its_frame_is_refused():
    sized = row(HIT, None, input_size=(28, 28), image_size=(10, 10))
    with pytest.raises(ResultError, match="row 2: no image_size"):
        score_results(own([sized, row(HIT, None)], accuracy=0.0, frame="input"))


def test_our_own_file_must_name_its_frame():
    with pytest.raises(ResultError, match=r"contract\.frame"):
        score_results(ResultFile(accuracy=0.0, results=[row(HIT, None)], meta={"step": 0}))


def test_a_file_without_rows_has_no_score():
    with pytest.raises(ResultError, match="without rows"):
        score_results(log([], accuracy=0.0))


def test_json_holds_what_the_file_holds():
    rows = [row(HIT, TRUTH, image="a"), row(HIT, TRUTH, image="a"), row(MISS, None, image="b")]
    found = score_results(log(rows, 66.67)).to_json_dict("x.json", Resampling(0.95, 500, 1))
    assert found == {
        "file": "x.json",
        "n": 3,
        "accuracy": pytest.approx(200 / 3),
        "ci_low": 0.0,
        "ci_high": 100.0,
        "mean_iou": pytest.approx(2 / 3),
        "parse_rate": pytest.approx(2 / 3),
        "unparsed": {"logged_without_box": 1},
        "stated_accuracy": 66.67,
        "reading": "logged",
        "note": None,
    }


def test_one_picture_has_no_interval():
    found = score_results(log([row(HIT, TRUTH)], 100.0)).to_json_dict("x.json")
    assert (found["accuracy"], found["ci_low"], found["ci_high"]) == (100.0, None, None)
