"""The benchmarks' runner: ratios by hand, its page, and the figures that it keeps."""

import json

import pytest

import benchmarks.__main__ as runner
from benchmarks.compare import figure


def test_a_ratio_is_of_medians_and_its_range_of_single_rounds():
    found = figure("step", ours=[1, 2, 3], baseline=[2, 2, 4])
    assert found == ("step", 1.0, 0.5, 1.0)
    assert json.loads(found.line()) == {"name": "step", "ratio": 1.0, "low": 0.5, "high": 1.0}


@pytest.mark.parametrize(
    ("found", "target", "said"),
    [
        (0.5, ("<=", 0.5), "at most 0.5: met"),
        (0.51, ("<=", 0.5), "at most 0.5: **not met**"),
        (9.9, (">=", 10.0), "at least 10: **not met**"),
        (0.5, None, ""),
    ],
)
def test_a_target_that_is_not_met_is_shown(found, target, said):
    assert runner.verdict(found, target) == said


def test_the_runner_keeps_the_lines_that_are_figures(monkeypatch, tmp_path, capfd):
    (tmp_path / "trivial.py").write_text('print("fast")\nprint(\'{"name": "a", "ratio": 2}\')\n')
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    assert runner.run("trivial") == [{"name": "a", "ratio": 2}]
    assert "fast" in capfd.readouterr().out
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(SystemExit, match="python -m empty: exit code 0, no figures"):
        runner.run("empty")


def test_the_pages_table_is_of_the_results_that_are_committed():
    results = json.loads(runner.RESULTS.read_text(encoding="utf-8"))
    page = runner.PAGE.read_text(encoding="utf-8")
    assert {one["command"] for one in results["benchmarks"]} <= set(runner.COMMANDS)
    assert runner.with_table(page, results) == page
