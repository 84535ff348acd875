"""Results that cannot be compared: refused by file and fault, and the old report stays."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report_files import tiny_params, write_experiment
from vlm_r1 import paths
from vlm_r1.errors import InputError
from vlm_r1.stages import report as stage

PARAMS = tiny_params()
FILE = paths.result_file("grpo", "street_test", 2)


@pytest.fixture
def project(tmp_path) -> Path:
    """Whole results, with record ids, and the report of an earlier run."""
    write_experiment(tmp_path, PARAMS, with_ids)
    (tmp_path / paths.REPORT).mkdir(parents=True)
    (tmp_path / paths.REPORT / "report.json").write_text("old")
    return tmp_path


def with_ids(result):
    rows = [row.model_copy(update={"record_id": f"r{i}"}) for i, row in enumerate(result.results)]
    meta = {**result.meta, "records": len(rows)}
    return result.model_copy(update={"results": rows, "meta": meta})


def edit(project: Path, change: Callable[[dict], None]) -> None:
    values = json.loads((project / FILE).read_text())
    change(values)
    (project / FILE).write_text(json.dumps(values))


def refusal(project: Path) -> str:
    with pytest.raises(InputError) as raised:
        stage.run(PARAMS, project)
    assert (project / paths.REPORT / "report.json").read_text() == "old"
    return str(raised.value)


def test_a_file_cut_short(project):
    text = (project / FILE).read_text()
    (project / FILE).write_text(text[: len(text) // 2])
    assert "results/grpo/street_test/step-2.json" in refusal(project)


def test_fewer_rows_than_the_file_says(project):
    edit(project, lambda values: values["results"].pop())
    assert "step-2.json: a result file with 11 of 12 rows" in refusal(project)


def test_another_number_of_rows_than_the_other_method_has(project):
    def shorten(values):
        values["results"].pop()
        values["meta"]["records"] -= 1

    edit(project, shorten)
    told = refusal(project)
    assert "results/grpo/street_test/step-2.json: 11 rows" in told
    assert "'r11'" in told


def test_a_record_id_that_stands_twice(project):
    edit(project, lambda values: values["results"][3].update(record_id="r2"))
    assert "step-2.json: record id 'r2' in rows 3 and 4" in refusal(project)


def test_a_record_id_that_the_other_method_lacks(project):
    edit(project, lambda values: values["results"][3].update(record_id="other"))
    told = refusal(project)
    assert "'other'" in told
    assert "'r3'" in told


def test_one_record_id_with_two_true_boxes(project):
    edit(project, lambda values: values["results"][3].update(ground_truth=[1, 2, 3, 4]))
    assert "record id 'r3': true box" in refusal(project)


def test_an_empty_dataset(project):
    def empty(values):
        values["results"].clear()
        values["meta"]["records"] = 0

    edit(project, empty)
    assert "results/grpo/street_test/step-2.json: a file without rows" in refusal(project)


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_a_number_that_is_none(project, number):
    text = (project / FILE).read_text()
    (project / FILE).write_text(text.replace("10.0", number, 1))
    assert "step-2.json: row 1: ground_truth" in refusal(project)


def test_results_of_another_contract(project):
    edit(project, lambda values: values["meta"]["contract"].update(max_pixels=7))
    told = refusal(project)
    assert "max_pixels: 1000 != 7" in told
    assert FILE.as_posix() in told


def test_answers_without_any_box_are_scored_as_misses_and_told(project):
    def silence(values):
        for row in values["results"]:
            row.update(model_output="no", extracted_answer=None, correct=0)
        values["accuracy"] = 0.0

    edit(project, silence)
    folder = stage.run(PARAMS, project)
    report = json.loads((folder / "report.json").read_text())
    (point,) = (
        c for c in report["curves"]
        if (c["method"], c["dataset"], c["step"]) == ("grpo", "street_test", 2)
    )  # fmt: skip
    assert (point["n"], point["accuracy"], point["parse_rate"]) == (12, 0.0, 0.0)
    assert f"{FILE.as_posix()}: " in (folder / "report.md").read_text().replace("\\", "")
