"""evaluation/scoring.py: the two readings of a row, and what a file's statement is worth."""

import numpy as np
import pytest

from vlm_r1.errors import ResultError
from vlm_r1.evaluation.score_text import score_text, scores_json
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.rec.results import ResultFile, ResultRow
from vlm_r1.rec.vlm_r1_parsers import PRESETS, preset_named

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


def log(rows: list[ResultRow], accuracy: float | None) -> ResultFile:
    return ResultFile(accuracy=accuracy, results=rows)


def own(rows: list[ResultRow], accuracy: float, coordinate_space: str) -> ResultFile:
    return ResultFile(
        accuracy=accuracy, results=rows, meta={"contract": {"coordinate_space": coordinate_space}}
    )


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
    assert (scores.reading, scores.accuracy) == ("standard", 50.0)
    assert "the boxes it extracted score 0.0 %, but its completions score 50.0 %" in scores.note


def test_our_own_files_are_parsed_in_the_coordinate_space_of_their_contract():
    """[0, 0, 28, 28] of an image shown at 28 x 28 is all of its 10 x 10 original pixels."""
    answer = '{"bbox_2d": [0, 0, 28, 28]}'
    sized = row(answer, (0, 0, 1, 1), image="a.png", input_size=(28, 28), image_size=(10, 10))
    scores = score_results(own([sized], accuracy=100.0, coordinate_space="input"))
    assert (scores.reading, scores.accuracy, scores.mean_iou) == ("standard", 100.0, 1.0)
    assert scores.boxes.tolist() == [[0, 0, 10, 10]]
    assert scores.images.tolist() == ["a.png"]


def test_unparsed_rows_are_counted_by_reason_and_score_nothing():
    rows = [row(text, None) for text in (HIT, "", "no idea", "none")]
    scores = score_results(own(rows, accuracy=25.0, coordinate_space="original"))
    assert scores.unparsed == {"empty": 1, "no_box": 2}
    assert (scores.accuracy, scores.mean_iou, scores.parse_rate) == (25.0, 0.25, 0.25)


def test_a_statement_that_does_not_hold_is_noted():
    scores = score_results(log([row(HIT, TRUTH), row(MISS, (50, 50, 60, 60))], accuracy=75.0))
    assert scores.accuracy == 50.0
    assert scores.note.startswith("the file states 75.00 %, its rows score 50.00 %")


def test_a_row_without_the_sizes_of_its_coordinate_space_is_refused():
    sized = row(HIT, None, input_size=(28, 28), image_size=(10, 10))
    with pytest.raises(ResultError, match="row 2: no image_size"):
        score_results(own([sized, row(HIT, None)], accuracy=0.0, coordinate_space="input"))


def test_our_own_file_must_name_its_coordinate_space():
    with pytest.raises(ResultError, match=r"contract\.coordinate_space"):
        score_results(ResultFile(accuracy=0.0, results=[row(HIT, None)], meta={"step": 0}))


def test_a_file_without_rows_has_no_score():
    with pytest.raises(ResultError, match="without rows"):
        score_results(log([], accuracy=0.0))


def test_a_file_with_fewer_rows_than_it_says_has_no_score():
    meta = {"contract": {"coordinate_space": "original"}, "records": 3}
    result = ResultFile(accuracy=100.0, results=[row(HIT, TRUTH)] * 2, meta=meta)
    with pytest.raises(ResultError, match="2 of 3 rows"):
        score_results(result)


@pytest.mark.parametrize("truth", [(10, 0, 10, 10), (50, 60, 20, 30)])
def test_a_true_box_without_area_is_refused(truth):
    rows = [row(HIT, TRUTH), row(HIT, TRUTH).model_copy(update={"ground_truth": truth})]
    with pytest.raises(ResultError, match="row 2: true box"):
        score_results(log(rows, accuracy=0.0))


def test_an_unknown_coordinate_space_is_refused():
    with pytest.raises(ResultError, match="coordinate space 'pixels'"):
        score_results(own([row(HIT, TRUTH)], 100.0, "pixels"))


def test_answers_without_any_box_score_nothing_and_the_note_says_so():
    scores = score_results(own([row("left", None), row("right", None)], 0.0, "original"))
    found = scores_json(scores, "x.json")
    assert (found["n"], found["accuracy"], found["parse_rate"], found["mean_iou"]) == (2, 0, 0, 0)
    assert found["unparsed"] == {"no_box": 2}
    assert "no box could be read from any of the 2 answers" in found["note"]


def test_a_preset_reads_completions_rather_than_logged_boxes():
    """The answer tag spans two lines, which February's R1 script does not read."""
    rows = [row(f"<answer>\n{HIT}</answer>", (0, 0, 0, 0)), row(f"<answer>{HIT}</answer>", TRUTH)]
    scores = score_results(log(rows, accuracy=50.0), PRESETS["feb2025-r1"])
    assert (scores.reading, scores.accuracy, scores.note) == ("feb2025-r1", 50.0, None)
    assert scores.unparsed == {"no_answer": 1}


def test_the_parser_that_gives_the_stated_number_is_named():
    rows = [row(f"<answer>\n{HIT}</answer>", None), row(f"<answer>{HIT}</answer>", None)]
    scores = score_results(log(rows, accuracy=50.0))
    assert (scores.reading, scores.accuracy) == ("standard", 100.0)
    assert (
        "the cause is the parser: preset feb2025-r1 in coordinate space original gives"
        in scores.note
    )


def test_the_coordinate_space_that_gives_the_stated_number_is_named():
    """[0, 0, 500, 500] of 0-1000 is all of the true box in an image of 20 x 20."""
    rows = [row("[0, 0, 500, 500]", None, image_size=(20, 20))] * 2
    scores = score_results(log(rows, accuracy=100.0))
    assert scores.accuracy == 0.0
    assert (
        "the cause is the coordinate space: preset standard in coordinate space thousand gives"
        in scores.note
    )
    asked = score_results(log(rows, accuracy=100.0), coordinate_space="thousand")
    assert (asked.accuracy, asked.coordinate_space, asked.note) == (100.0, "thousand", None)


def test_coordinate_spaces_that_cannot_be_tried_are_named():
    scores = score_results(log([row(HIT, None), row(MISS, None)], accuracy=75.0))
    assert "no preset in any coordinate space gives the stated number" in scores.note
    assert "not tried for want of sizes: input, thousand, unit" in scores.note


def test_a_share_is_told_from_percent():
    scores = score_results(log([row(HIT, None), row(MISS, None)], accuracy=0.5))
    assert scores.note.endswith("(the file states a share, not percent)")


def test_a_file_that_states_nothing_holds_its_word():
    scores = score_results(log([row(HIT, None)], accuracy=None))
    assert (scores.accuracy, scores.stated_accuracy, scores.note) == (100.0, None, None)


def test_what_a_broken_extraction_did_is_named():
    """Extracted in 0-1000 of an image of 400 x 200 (as VLM-R1's own RefCOCO baseline)."""
    truth = [(10.0 * i, 20.0, 10.0 * i + 50, 90.0) for i in range(20)]
    rows = [
        row(str([int(side) for side in box]), (2.5 * box[0], 100, 2.5 * box[2], 450)).model_copy(
            update={"ground_truth": box}
        )
        for box in truth
    ]
    scores = score_results(log(rows, accuracy=0.0))
    assert scores.accuracy == 100.0
    assert (
        "it took the completions' boxes in coordinate space thousand, scored as original"
        in scores.note
    )
    asked = score_results(log(rows, accuracy=0.0), PRESETS["mar2025"])
    assert (
        "the cause is the extraction: the log's own boxes (the completions' boxes in" in asked.note
    )


def test_reversed_corners_are_repaired_and_counted_when_asked_for():
    rows = [row("[10, 10, 0, 0]", None), row(f"{HIT} {MISS}", None)]
    plain = score_results(log(rows, accuracy=None))
    assert (plain.accuracy, plain.unparsed) == (50.0, {"reversed_corners": 1})
    repaired = score_results(log(rows, accuracy=None), preset_named("standard", repair=True))
    assert (repaired.accuracy, repaired.repaired, repaired.several) == (100.0, 1, 1)


def test_a_box_in_a_coordinate_space_that_needs_a_size_the_log_lacks_is_counted_as_unread():
    rows = [row("[0.1, 0.1, 0.5, 0.5]", None), row("[0, 0, 10, 10]", None)]
    scores = score_results(log(rows, accuracy=None), PRESETS["feb2025-sft"])
    assert (scores.unparsed, scores.accuracy) == ({"no_image_size": 1}, 50.0)


def test_scores_give_the_boxes_as_written_for_the_coordinate_space_check():
    sizes = {"image": "a.png", "input_size": (28, 56), "image_size": (14, 14)}
    scores = score_results(own([row("[8, 4, 28, 20]", None, **sizes)], 0.0, "input"))
    written = scores.written_boxes
    assert (written.boxes.tolist(), written.assumed) == ([[8, 4, 28, 20]], "input")
    assert (written.image_size.tolist(), written.input_size.tolist()) == ([[14, 14]], [[28, 56]])
    assert scores.boxes.tolist() == [[2, 2, 7, 10]]
    assert written.true_boxes.tolist() == [list(TRUTH)]
    assert (scores.image_size.tolist(), scores.input_size.tolist()) == ([[14, 14]], [[28, 56]])


def test_json_holds_what_the_file_holds():
    rows = [row(HIT, TRUTH, image="a"), row(HIT, TRUTH, image="a"), row(MISS, None, image="b")]
    found = scores_json(score_results(log(rows, 66.67)), "x.json", 0.95)
    assert found == {
        "file": "x.json",
        "n": 3,
        "accuracy": pytest.approx(200 / 3),
        "ci_low": pytest.approx(0.308, abs=1e-3),  # Wilson, t of two degrees of freedom
        "ci_high": pytest.approx(99.923, abs=1e-3),
        "mean_iou": pytest.approx(2 / 3),
        "parse_rate": pytest.approx(2 / 3),
        "accuracy_at": dict.fromkeys(("0.3", "0.7", "0.9"), pytest.approx(200 / 3)),
        "unparsed": {"logged_without_box": 1},
        "several": 0,
        "repaired": 0,
        "stated_accuracy": 66.67,
        "coordinate_space": {
            "assumed": "original",
            "best": "original",
            "corrected_accuracy": pytest.approx(200 / 3),
            "corrected_ci_low": pytest.approx(0.308, abs=1e-3),
            "corrected_ci_high": pytest.approx(99.923, abs=1e-3),
        },
        "reading": "logged",
        "note": None,
    }


def test_one_image_has_no_interval():
    found = scores_json(score_results(log([row(HIT, TRUTH)], 100.0)), "x.json")
    assert (found["accuracy"], found["ci_low"], found["ci_high"]) == (100.0, None, None)


def test_accuracy_at_other_thresholds_counts_what_is_strictly_above():
    """IoU 1.0, 0.5 and 0.25: half a true box, and a quarter."""
    rows = [row(f"[0, 0, 10, {height}]", None) for height in (10, 5, 2.5)]
    found = scores_json(score_results(log(rows, None)), "x.json")
    assert found["accuracy"] == pytest.approx(100 / 3)
    assert found["accuracy_at"] == pytest.approx({"0.3": 200 / 3, "0.7": 100 / 3, "0.9": 100 / 3})


def test_words_hold_the_numbers_the_reading_and_the_reasons():
    found = scores_json(score_results(log([row(HIT, None), row("none", None)], 50.0)), "x.json")
    text = score_text(found)
    assert "x.json: n 2, accuracy 50.00 % (no interval from one image)" in text
    assert "reading standard, coordinate space original; the file states 50.00 %" in text
    assert "no box: no_box 1" in text
