"""evaluation/row_table.py: rows as columns, and what files of one dataset share."""

import numpy as np
import pytest

from vlm_r1.evaluation.pairing import keys_of
from vlm_r1.evaluation.row_table import RowTable, share, share_scores
from vlm_r1.evaluation.scoring import score_results
from vlm_r1.rec.results import ResultFile, ResultRow
from vlm_r1.report.results_table import EvalResult, ResultsTable, make_eval_result, share_columns

ROWS = [
    ResultRow(
        question="Where is the cat?",
        ground_truth=(0.5, 1.0, 10.0, 20.0),
        model_output="<answer>[0, 1, 10, 20]</answer>",
        extracted_answer=(0, 1, 10, 20),
        correct=1,
        image="a.png",
        input_size=(56, 84),
        image_size=(60, 90),
        record_id="set:1",
        new_tokens=12,
        cut_off=False,
        sampled_correct=[1, 0],
        category="cat",
        split="val",
    ),
    ResultRow(
        question="ein Vögelchen 🐦",
        ground_truth=(1.0, 2.0, 3.0, 4.0),
        model_output="",
        extracted_answer=None,
        correct=None,
        record_id=7,
        sampled_correct=[0, 0],
    ),
]


def result_of(rows: list[ResultRow], step: int = 0, method: str = "sft") -> EvalResult:
    return make_eval_result(
        ResultFile(accuracy=None, results=rows),
        method=method,
        dataset="far",
        role="ood",
        step=step,
        source=f"{method}/{step}.json",
    )


def table_of(rows: list[ResultRow]) -> RowTable:
    return RowTable.of(rows, score_results(ResultFile(accuracy=None, results=rows)))


def answered(text: str) -> list[ResultRow]:
    """The same records with another answer."""
    return [row.model_copy(update={"model_output": text}) for row in ROWS]


def test_a_row_comes_back_as_it_was():
    table = table_of(ROWS)
    assert list(table) == ROWS
    assert (table[0], table[-1], table[1:]) == (ROWS[0], ROWS[1], ROWS[1:])
    with pytest.raises(IndexError):
        table[2]


def test_numbers_keep_their_kind():
    row = table_of(ROWS)[0]
    assert row.model_dump_json() == ROWS[0].model_dump_json()
    assert [type(side) for side in row.image_size] == [int, int]
    assert type(row.correct) is int


def test_columns_give_the_keys_of_the_rows():
    assert table_of(ROWS).keys() == keys_of(ROWS)


def test_rows_are_taken_in_another_order():
    assert list(table_of(ROWS).take([1, 0, 0])) == [ROWS[1], ROWS[0], ROWS[0]]


def test_whether_all_images_are_named():
    assert table_of(ROWS[:1]).names_all_images
    assert not table_of(ROWS).names_all_images


def test_equal_columns_are_held_once_and_others_kept():
    first, second = result_of(ROWS), result_of(answered("[0, 1, 10, 20]"), step=1)
    other = [ROWS[0], ROWS[1].model_copy(update={"question": "another"})]
    rows = share(first.rows, second.rows)
    assert rows.records.question is first.rows.records.question
    assert rows.records.true_boxes is first.rows.records.true_boxes
    assert rows.completion is second.rows.completion
    kept = share(first.rows, table_of(other))
    assert kept.records.question is not first.rows.records.question
    assert kept.records.record_id is first.rows.records.record_id
    assert list(kept) == other
    scores = share_scores(first.scores, second.scores)
    assert scores.images is first.scores.images
    assert scores.boxes is second.scores.boxes


def test_a_boxs_numbers_are_held_once_when_the_file_states_what_is_scored():
    result = result_of(ROWS[:1])
    assert result.rows.extracted is result.scores.boxes


def test_results_share_as_they_are_read_and_after_reordering():
    files = [result_of(ROWS), result_of(answered("[1, 2, 3, 4]"), 1), result_of(ROWS[::-1], 2)]
    read = share_columns(iter(files))
    assert read[1].rows.records.question is read[0].rows.records.question
    assert read[2].rows.records.question is not read[0].rows.records.question
    table = ResultsTable(read)
    for step in (1, 2):
        records = table["sft", "far", step].first.rows.records
        assert records.question is read[0].rows.records.question
    assert list(table["sft", "far", 2].first.rows) == ROWS
    assert table["sft", "far", 2].images is table["sft", "far", 0].images


def test_another_answer_costs_its_text_and_a_few_numbers():
    rows = [ROWS[0].model_copy(update={"record_id": f"set:{i}"}) for i in range(1000)]
    first, second = share_columns([result_of(rows), result_of(rows, step=1)])
    held = {id(array): array for array in _arrays(first)}
    own = [array for array in _arrays(second) if id(array) not in held]
    text_bytes = len(ROWS[0].model_output) + 8  # and its offset in the buffer
    number_bytes = (
        4 * 8 + 8 + 1 + 8 + 4 + 2 + 2
    )  # box, IoU, hit, stated verdict, tokens, cut off, repeats
    assert sum(array.nbytes for array in own) <= 1000 * (text_bytes + number_bytes) + 100


def _arrays(result: EvalResult) -> list:
    """Every distinct array of a result."""
    values = [*vars(result.rows.records).values(), *vars(result.rows).values()]
    values += vars(result.scores).values()
    arrays = [value for value in values if hasattr(value, "nbytes")]
    assert any(isinstance(array, np.ndarray) for array in arrays)
    return list({id(array): array for array in arrays}.values())
