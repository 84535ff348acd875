"""report/from_logs.py: VLM-R1's file names and rows, a broken baseline, files of other models."""

import json
from pathlib import Path

import pytest

from vlm_r1.config import standalone
from vlm_r1.errors import ResultError
from vlm_r1.report.from_logs import report_from_logs
from vlm_r1.report.schema import Report

SETTINGS = standalone.REPORT.model_copy(update={"gallery": 4})
NAME = "rec_results_{}_qwen2_5vl_3b_instruct_{}.json"
WRONG = [500, 500, 900, 900]


def write_log(folder: Path, name: str, hits: int, broken: bool = False, size: int = 8) -> None:
    """A log of `size` rows as VLM-R1 writes it: no meta, no image; the first `hits` are right."""
    rows = []
    for i in range(size):
        truth = [10.5 * i, 0.0, 10.5 * i + 10, 10.0]
        answer = [round(side) for side in truth] if i < hits else WRONG
        rows.append(
            {
                "question": f"q{i}",
                "ground_truth": truth,
                "model_output": f'```json\n[{{"bbox_2d": {answer}}}]\n```',
                "extracted_answer": WRONG if broken else answer,
                "correct": int(i < hits and not broken),
            }
        )
    accuracy = 0.0 if broken else 100 * hits / size
    (folder / name).write_text(json.dumps({"accuracy": accuracy, "results": rows}))


@pytest.fixture
def logs(tmp_path) -> Path:
    """SFT at 100 and 200, R1 at 100, 200 and 300; the RefCOCO baseline is broken."""
    folder = tmp_path / "logs"
    folder.mkdir()
    write_log(folder, NAME.format("refcoco_val", "baseline"), hits=6, broken=True)
    write_log(folder, NAME.format("refgta_subsample", "baseline"), hits=5)
    for dataset, sft, r1 in (("refcoco_val", 7, 7), ("refgta_subsample", 1, 8)):
        for step in (100, 200):
            write_log(folder, NAME.format(dataset, f"sft_{step}"), hits=sft)
        for step in (100, 200, 300):
            write_log(folder, NAME.format(dataset, f"r1_{step}"), hits=r1)
    write_log(folder, NAME.format("refgta_subsample", "baseline").replace("3b", "7b"), hits=1)
    (folder / "debug_log.txt").write_text("not a result")
    return folder


def run(logs: Path, **names: str) -> Report:
    return report_from_logs(logs, logs.parent / "out", settings=SETTINGS, seed=1, **names)


def page(logs: Path) -> str:
    return (logs.parent / "out" / "report.html").read_text("utf-8")


def test_names_give_method_dataset_and_step(logs):
    report = run(logs)
    found = {(p.dataset, p.method, p.step): p.accuracy for p in report.curves}
    assert len(found) == 2 * (3 + 4)
    assert found["refgta_subsample", "sft", 200] == 12.5
    assert found["refgta_subsample", "grpo", 300] == 100.0
    assert found["refgta_subsample", "sft", 0] == found["refgta_subsample", "grpo", 0] == 62.5


def test_only_common_steps_are_compared(logs):
    report = run(logs)
    steps = [c.step for c in report.comparisons if c.dataset == "refgta_subsample"]
    assert steps == [0, 100, 200]
    assert (report.verdict.ood_dataset, report.verdict.step) == ("refgta_subsample", 200)
    assert report.verdict.difference == pytest.approx(87.5)


def test_contract_is_unverified_and_the_text_says_so(logs):
    report = run(logs)
    assert report.contract == {"verified": False}
    assert report.verdict.status == "unverified"
    assert report.verdict.title.startswith("Unsettled")
    assert "these logs do not show that both methods" in report.verdict.text
    assert "these logs do not show that both methods" in page(logs)


def test_broken_baseline_is_flagged_not_believed(logs):
    report = run(logs)
    starts = {p.accuracy for p in report.curves if (p.dataset, p.step) == ("refcoco_val", 0)}
    assert starts == {75.0}
    assert "extracted score 0.0 %, but its completions score 75.0 %" in page(logs)


def test_files_that_are_not_read_are_listed_with_the_reason(logs):
    run(logs)
    text = page(logs)
    assert "another model, 7b; compared is 3b" in text
    assert "<code>debug_log.txt</code> (its name is not that of a VLM-R1 result log)" in text


def test_roles_are_guessed_and_said_or_given(logs):
    roles = {d.name: d.role for d in run(logs).datasets}
    assert roles == {"refcoco_val": "id", "refgta_subsample": "ood"}
    assert "Roles guessed from the names: refcoco_val id, refgta_subsample ood." in page(logs)
    given = run(logs, id_name="refgta_subsample", ood_name="refcoco_val")
    assert [(d.name, d.role) for d in given.datasets] == [
        ("refgta_subsample", "id"),
        ("refcoco_val", "ood"),
    ]
    assert given.verdict.ood_dataset == "refcoco_val"
    assert "Roles guessed" not in page(logs)


def test_cases_are_text_only(logs):
    run(logs)
    assert page(logs).count('<article class="case">') == 4
    assert "The logs come without images." in page(logs)
    assert not list((logs.parent / "out" / "gallery").iterdir())


def test_unknown_dataset_is_refused(logs):
    with pytest.raises(ResultError, match=r"no log of dataset 'gta'\nneed one of refcoco_val, ref"):
        run(logs, ood_name="gta")


def test_folder_without_logs_is_refused(tmp_path):
    with pytest.raises(ResultError, match="0 files, none of them a result log"):
        report_from_logs(tmp_path, tmp_path / "out")


def test_missing_method_is_refused(logs):
    for path in logs.glob("*_sft_*.json"):
        path.unlink()
    for path in logs.glob("*baseline*"):
        path.unlink()
    with pytest.raises(ResultError, match="no results of sft on refcoco_val, sft on refgta_sub"):
        run(logs)


def test_broken_row_is_named_with_file_and_number(logs):
    file = logs / NAME.format("refgta_subsample", "sft_100")
    log = json.loads(file.read_text())
    del log["results"][2]["ground_truth"]
    file.write_text(json.dumps(log))
    with pytest.raises(ResultError, match=r"sft_100\.json: row 3: ground_truth"):
        run(logs)
    assert not (logs.parent / "out").exists()
