"""Blocks about answers: lengths, cut-offs, repeats, and both methods under one prompt."""

import pytest

from tests.conftest import small_values
from tests.report_files import HIT, MISS, TRUTH, result_file, rows
from vlm_r1 import paths
from vlm_r1.config import parse_params
from vlm_r1.errors import ResultError
from vlm_r1.evaluation.prompt_matrix_file import PromptCell, PromptMatrix
from vlm_r1.rec.results import ResultRow, write_results
from vlm_r1.report.answers import answers_block
from vlm_r1.report.common_prompts import common_prompts
from vlm_r1.report.repeats import repeats_block
from vlm_r1.report.results_table import ResultsTable, make_eval_result

PARAMS = parse_params(small_values(), "small")


def row(i: int, text: str = HIT, **fields) -> ResultRow:
    return ResultRow(
        question=f"q {i}",
        ground_truth=TRUTH,
        model_output=text,
        extracted_answer=TRUTH,
        correct=1,
        image=f"{i}.png",
        **fields,
    )


def result(method: str, lines: list[ResultRow], step: int = 0, seed: int | None = None):
    file = result_file(method, "d", step, lines)
    return make_eval_result(
        file, method=method, dataset="d", role="ood", step=step, source=f"{method}{seed}", seed=seed
    )


def counted(cut_offs: int, count: int = 20) -> list[ResultRow]:
    """Rows of which the first are cut off at 10 tokens, the others end with 4."""
    return [
        row(i, new_tokens=10 if i < cut_offs else 4, cut_off=i < cut_offs) for i in range(count)
    ]


def test_lengths_and_shares_worked_by_hand():
    texts = [HIT, "<think>x</think> none", "<think>", "none"]
    lines = [
        row(i, text, new_tokens=tokens, cut_off=tokens == 8)
        for i, (text, tokens) in enumerate(zip(texts, (2, 4, 8, 6), strict=True))
    ]
    line = answers_block(ResultsTable([result("sft", lines), result("grpo", lines)])).lines[0]
    assert (line.method, line.dataset, line.step, line.n) == ("sft", "d", 0, 4)
    assert (line.tokens.mean, line.tokens.median, line.tokens.longest) == (5, 5, 8)
    assert line.characters.longest == max(map(len, texts))
    assert (line.cut_off, line.thought, line.no_box, line.thought_without_box) == (25, 50, 75, 50)


def test_files_without_counts_have_characters_only():
    block = answers_block(ResultsTable([result("sft", rows(3)), result("grpo", rows(5))]))
    assert [line.tokens for line in block.lines] == [None, None]
    assert [line.cut_off for line in block.lines] == [None, None]
    assert block.lines[0].characters.mean > 0
    assert (block.cut_offs, block.warnings) == ([], [])


def test_a_significant_difference_of_cut_offs_warns():
    """Ten of twenty images differ, all in one direction: p = 2 / 2**10."""
    block = answers_block(ResultsTable([result("sft", counted(0)), result("grpo", counted(10))]))
    (line,) = block.cut_offs
    assert (line.sft, line.grpo, line.difference.points) == (0, 50, 50)
    assert line.p_holm == line.difference.p_value < 0.05
    assert block.warnings[0].startswith(
        "On d at step 0 the token limit cuts off 50.0 % of GRPO's answers and 0.0 % of SFT's"
    )


def test_an_insignificant_difference_does_not_warn():
    """Five images: p = 2 / 2**5 = 0.0625."""
    block = answers_block(ResultsTable([result("sft", counted(0)), result("grpo", counted(5))]))
    assert block.cut_offs[0].difference.points == 25
    assert block.warnings == []


def test_the_warning_allows_for_the_number_of_steps():
    """Seven images: p = 2 / 2**7 = 0.0156, by Holm over four steps 0.0625."""
    alone = [result(m, counted(7 if m == "grpo" else 0)) for m in ("sft", "grpo")]
    later = [result(m, counted(0), step) for m in ("sft", "grpo") for step in (1, 2, 3)]
    assert answers_block(ResultsTable(alone)).warnings
    block = answers_block(ResultsTable([*alone, *later]))
    assert block.cut_offs[0].p_holm == pytest.approx(4 * block.cut_offs[0].difference.p_value)
    assert block.warnings == []


def test_counts_of_several_runs_are_taken_together():
    runs = [
        result(method, counted(cut), seed=seed)
        for method, cuts in (("sft", (0, 2)), ("grpo", (4, 8)))
        for seed, cut in zip((1, 2), cuts, strict=True)
    ]
    block = answers_block(ResultsTable(runs))
    assert [line.n for line in block.lines] == [40, 40]
    assert [line.cut_off for line in block.lines] == [5, 30]
    assert block.cut_offs[0].difference.points == pytest.approx(25)


def sampled(hits: list[list[int]]) -> list[ResultRow]:
    return [row(i, sampled_correct=found) for i, found in enumerate(hits)]


def test_repeats_give_a_mean_and_two_variances():
    sft = sampled([[1, 1], [0, 0], [1, 0], [1, 0]])
    grpo = sampled([[1, 1], [1, 1], [1, 1], [1, 0]])
    block = repeats_block(ResultsTable([result("sft", sft), result("grpo", grpo)]))
    one, other = block.lines
    assert (one.method, one.repeats, one.n, one.accuracy, one.greedy) == ("sft", 2, 4, 50, 100)
    assert (one.within, one.between) == pytest.approx((0.25, 1 / 6 - 0.125))
    assert other.accuracy == 87.5
    assert one.ci_low < 50 < one.ci_high
    assert block.differences[0].difference.points == pytest.approx(37.5)


def test_without_sampled_answers_there_is_no_block():
    assert repeats_block(ResultsTable([result("sft", rows(1)), result("grpo", rows(2))])) is None
    half = [result("sft", sampled([[1], [0]])), result("grpo", [row(0), row(1)])]
    assert repeats_block(ResultsTable(half)) is None


def write_matrix(root, hits: dict[tuple[str, str], int], seeds=(42,)) -> None:
    """Cells of the last step on street_test: (model, template) -> number of right rows of 12."""
    folder, cells = root / paths.PROMPTS, []
    (folder / "street_test").mkdir(parents=True)
    for (model, template), count in hits.items():
        for seed in seeds:
            cell = PromptCell(
                model=model,
                step=0 if model == "base" else PARAMS.train.steps,
                seed=None if model == "base" else seed,
                template=template,
                dataset="street_test",
                file=f"street_test/{model}-{seed}-{template}.json",
            )
            write_results(
                folder / cell.file, result_file(model, "street_test", cell.step, rows(count))
            )
            cells.append(cell)
    PromptMatrix(cells=cells).write(folder)


def test_both_methods_are_compared_under_each_prompt(tmp_path):
    write_matrix(
        tmp_path,
        {
            ("base", "plain"): 0,
            ("sft", "plain"): 6,
            ("sft", "r1"): 6,
            ("grpo", "plain"): 6,
            ("grpo", "r1"): 12,
        },
    )
    block = common_prompts(tmp_path, PARAMS, 0.95)
    found = {line.template: (line.sft, line.grpo, line.difference.points) for line in block.lines}
    assert found == {"plain": (50, 50, 0), "r1": (50, 100, 50)}
    p_value = {line.template: line.difference.p_value for line in block.lines}["r1"]
    assert [line.p_holm for line in block.lines if line.template == "r1"] == [2 * p_value]
    assert block.sentence.startswith(
        f"Asked with the same prompt, at step {PARAMS.train.steps}, GRPO minus SFT is on "
        "street_test plain question 0.0 points ("
    )
    assert "; R1 (think, then answer) +50.0 points (" in block.sentence


def test_several_runs_of_a_method_count_together(tmp_path):
    write_matrix(tmp_path, {("sft", "r1"): 4, ("grpo", "r1"): 6}, seeds=(42, 43))
    (line,) = common_prompts(tmp_path, PARAMS, 0.95).lines
    assert (line.n, line.difference.points) == (12, pytest.approx(100 / 6))


def test_a_prompt_that_only_one_method_was_asked_with_is_refused(tmp_path):
    write_matrix(tmp_path, {("grpo", "r1"): 6})
    with pytest.raises(ResultError, match="prompt r1 on street_test at step 2"):
        common_prompts(tmp_path, PARAMS, 0.95)


def test_without_the_matrix_nothing_is_said(tmp_path):
    write_matrix(tmp_path, {})
    block = common_prompts(tmp_path, PARAMS, 0.95)
    assert (block.lines, block.sentence) == ([], None)


def test_the_constants_of_these_tests_are_what_they_seem():
    assert (HIT != MISS, PARAMS.names("ood")) == (True, ["street_test"])
