"""evaluation/comparison.py and pairing.py: B - A, flips, and logs that may not be compared."""

import json

import pytest
from typer.testing import CliRunner

from vlm_r1.cli import main as cli
from vlm_r1.errors import ContractError, ResultError
from vlm_r1.evaluation.comparison import compare_logs, comparison_text
from vlm_r1.evaluation.prediction_logs import PredictionLog
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.rec.results import ResultFile, ResultRow, write_results

HIT, MISS = "[0, 0, 10, 10]", "[50, 50, 60, 60]"
FEW = 0.95
CONTRACT = {"coordinate_space": "original", "seed": 1}
runner = CliRunner()


def row(number: int, hit: bool, **more) -> ResultRow:
    """Row `number` with a true box and an image of its own."""
    values = {
        "question": f"q{number}",
        "ground_truth": (0, 0, 10, 10 + number / 100),
        "model_output": HIT if hit else MISS,
        "extracted_answer": None,
        "correct": int(hit),
        "image": f"{number}.png",
    }
    return ResultRow(**(values | more))


def log(name: str, rows: list[ResultRow], contract: dict | None = None) -> PredictionLog:
    meta = None if contract is None else {"contract": contract}
    result = ResultFile(accuracy=None, results=rows, meta=meta)
    return PredictionLog(name, result, score_results(result))


def rows(hits: str) -> list[ResultRow]:
    """Of "10", row 0 is a hit and row 1 a miss."""
    return [row(number, hit == "1") for number, hit in enumerate(hits)]


def test_b_minus_a_by_hand():
    """Of six rows A has 2 right and B 4: one only A, three only B; p = 2 (1 + 4) / 2**4."""
    found = compare_logs(log("a", rows("110000")), log("b", rows("101110")), confidence=FEW)
    said = found.to_json_dict()
    assert {key: said[key] for key in ("n", "images", "only_a", "only_b")} == {
        "n": 6, "images": 6, "only_a": 1, "only_b": 3,
    }  # fmt: skip
    assert said["difference"] == pytest.approx(100 * 2 / 6)
    assert said["mcnemar_p"] == pytest.approx(0.625)
    assert said["ci_low"] < said["difference"] < said["ci_high"]
    assert list(said) == [
        "n", "images", "difference", "ci_low", "ci_high", "p_value", "mcnemar_p", "only_a",
        "only_b",
    ]  # fmt: skip


def test_rows_pair_whatever_their_order():
    shuffled = rows("101110")[::-1]
    found = compare_logs(log("a", rows("110000")), log("b", shuffled), confidence=FEW)
    assert (found.mcnemar.only_a, found.mcnemar.only_b) == (1, 3)
    assert found.pairing.by == "question and true box"


def test_record_ids_pair_where_questions_do_not():
    a = [row(0, True, record_id="x"), row(1, False, record_id="y")]
    b = [row(1, True, record_id="y", question="?"), row(0, True, record_id="x", question="!")]
    found = compare_logs(log("a", a), log("b", b), confidence=FEW)
    assert (found.pairing.by, found.pairing.b, found.mcnemar.only_b) == ("record id", [1, 0], 1)


def test_images_that_are_called_otherwise_do_not_keep_rows_apart():
    b = [row(i, True, image=f"/data/{i}.png") for i in range(3)]
    assert compare_logs(log("a", rows("100")), log("b", b), confidence=FEW).mcnemar.only_b == 2


def test_rows_alike_in_all_pair_by_occurrence():
    twice = [row(0, True), row(0, False), row(1, True)]
    found = compare_logs(log("a", twice), log("b", [twice[2], *twice[:2]]), confidence=FEW)
    assert (found.mcnemar.only_a, found.mcnemar.only_b) == (0, 0)


def test_flips_show_question_true_box_and_both_predictions():
    a, b = rows("100"), [*rows("01"), row(2, False, model_output="none")]
    found = compare_logs(log("a", a), log("b", b), confidence=FEW)
    first, second = found.to_json_dict(flips=5)["flips"]
    assert first == {
        "question": "q1", "true_box": [0, 0, 10, 10.01],
        "box_a": [50, 50, 60, 60], "box_b": [0, 0, 10, 10], "right": "b",
    }  # fmt: skip
    assert (second["question"], second["right"]) == ("q0", "a")
    assert len(found.to_json_dict(flips=1)["flips"]) == 1
    text = comparison_text(found, "a.json", "b.json", flips=1)
    assert "flips, 1 of 2:" in text
    assert "only B right: 'q1' true [0.0, 0.0, 10.0, 10.01], A [50.0, 50.0, 60.0, 60.0]" in text


def test_one_image_has_a_difference_but_no_interval():
    a = [row(i, False, image="one.png") for i in range(2)]
    b = [row(i, True, image="one.png") for i in range(2)]
    said = compare_logs(log("a", a), log("b", b)).to_json_dict()
    assert (said["difference"], said["ci_low"], said["images"]) == (100.0, None, 1)


@pytest.mark.parametrize(
    ("b", "match"),
    [
        (rows("11"), r"a: 3 rows, 1 not in the other, first row 3: .*'q2'.*; b: 2 rows, 0 not"),
        ([*rows("11"), row(7, True)], r"a: 3 rows, 1 not .*; b: 3 rows, 1 not .* row 3: .*'q7'"),
        ([*rows("11"), row(1, True)], r"b: 3 rows, 1 not in the other, first row 3: .*'q1'"),
    ],
)
def test_rows_that_are_not_in_both_are_refused(b, match):
    with pytest.raises(ResultError, match=match):
        compare_logs(log("a", rows("110")), log("b", b))


def test_common_rows_are_compared_when_asked_for_and_the_rest_counted():
    a, b = rows("1100"), [row(1, True), row(2, True), row(9, True)]
    found = compare_logs(log("a", a), log("b", b), common=True, confidence=FEW)
    said = found.to_json_dict()
    assert (said["n"], said["left_out"], said["difference"]) == (2, {"a": 2, "b": 1}, 50.0)
    assert "left out: 2 rows only in A, 1 only in B" in comparison_text(found, "a", "b")


def test_logs_without_a_common_row_are_refused_even_so():
    with pytest.raises(ResultError, match="b: 1 rows, 1 not in the other"):
        compare_logs(log("a", rows("11")), log("b", [row(9, True)]), common=True)


def test_a_record_id_that_stands_twice_is_refused():
    a = [row(i, True, record_id=f"r{i}") for i in range(3)]
    b = [*a[:2], row(2, True, record_id="r0")]
    with pytest.raises(ResultError, match="b: record id 'r0' in rows 1 and 3"):
        compare_logs(log("a", a), log("b", b))


def test_a_record_id_that_is_missing_is_refused():
    a = [row(i, True, record_id=f"r{i}") for i in range(3)]
    with pytest.raises(ResultError, match="a: 3 rows, 1 not in the other, first row 3: 'r2'"):
        compare_logs(log("a", a), log("b", a[:2]))


def test_a_record_with_two_true_boxes_is_refused():
    a, b = [row(0, True, record_id="x")], [row(1, True, record_id="x")]
    with pytest.raises(ResultError, match="record id 'x': true box"):
        compare_logs(log("a", a), log("b", b))


def test_our_files_of_other_terms_are_refused_unless_that_is_allowed():
    a, b = log("a", rows("10"), CONTRACT), log("b", rows("11"), CONTRACT | {"seed": 2})
    with pytest.raises(ContractError, match="seed: 1 != 2"):
        compare_logs(a, b)
    found = compare_logs(a, b, allow_unfair=True, confidence=FEW)
    assert found.to_json_dict()["unfair"] == ["seed: 1 != 2"]
    assert "UNFAIR, the contracts differ: seed: 1 != 2" in comparison_text(found, "a", "b")


def test_two_readings_are_told():
    b = [row(i, True, extracted_answer=(0, 0, 10, 10)) for i in range(2)]
    found = compare_logs(log("a", rows("10")), log("b", b), confidence=FEW)
    assert found.notes == [
        "two readings: A by standard, B by logged; --preset standard reads both alike"
    ]


def test_the_command_line_compares(tmp_path):
    for name, hits, seed in (("a", "1100", 1), ("b", "1011", 1), ("c", "1011", 2)):
        meta = {"contract": CONTRACT | {"seed": seed}}
        result = ResultFile(accuracy=None, results=rows(hits), meta=meta)
        write_results(tmp_path / f"{name}.json", result)
    a, b, c = (str(tmp_path / f"{name}.json") for name in "abc")
    said = json.loads(runner.invoke(cli.app, ["compare", a, b, "--json"]).output)
    assert (said["n"], said["difference"], said["only_a"], said["only_b"]) == (4, 25.0, 1, 2)
    text = runner.invoke(cli.app, ["compare", a, b, "--flips", "1"]).output
    assert text.startswith("B - A: +25.00 points")
    assert "flips, 1 of 3" in text
    assert isinstance(runner.invoke(cli.app, ["compare", a, c]).exception, ContractError)
    unfair = runner.invoke(cli.app, ["compare", a, c, "--allow-unfair", "--json"]).output
    assert json.loads(unfair)["unfair"] == ["seed: 1 != 2"]
