"""The verdict's words: gains before raw differences, and no claim that the tests do not carry."""

from dataclasses import replace

import pytest

from tests.test_report import eval_result, moved_rows
from vlm_r1.evaluation.coordinate_correction import Decomposition
from vlm_r1.report.analysis import LastStep, at_last_step
from vlm_r1.report.gains import Overall
from vlm_r1.report.results_table import ResultsTable
from vlm_r1.report.schema import (
    ChosenLine,
    Estimate,
    GapDifference,
    MethodStatistics,
    Statistics,
)
from vlm_r1.report.verdict import Findings, VerdictText, write_verdict
from vlm_r1.report.verdict_details import details
from vlm_r1.report.wording import points
from vlm_r1.stats.intervals import Difference

NOTHING = (0.0, -1.0, 1.0, 0.9)


def overall(
    difference: tuple,
    gain: tuple | None = NOTHING,
    p_holm: float = 0.02,
    gain_p_holm: float = 0.02,
    grounding: tuple | None = None,
    datasets: tuple[str, ...] = ("gta",),
) -> Overall:
    return Overall(
        datasets=list(datasets),
        step=500,
        confidence=0.95,
        accuracy={"sft": 67.0, "grpo": 67.0 + difference[0]},
        difference=Difference(*difference),
        p_holm=p_holm,
        gain=None if gain is None else Difference(*gain),
        gain_p_holm=None if gain is None else gain_p_holm,
        gains={} if gain is None else {"sft": -3.0, "grpo": -3.0 + gain[0]},
        grounding=Difference(*(grounding or gain or difference)),
        tests=2,
        n=1000,
        n_images=500,
    )


def statistics(seeds: int = 1, **blocks: list) -> Statistics:
    blocks = {"methods": [], "gap_differences": [], **blocks}
    return Statistics(seeds=seeds, confidence=0.95, power=0.8, datasets=[], **blocks)


def verdict(found: Overall, seeds: int = 1, **findings) -> VerdictText:
    findings = {"sets": [], "last_steps": [], "statistics": statistics(seeds), **findings}
    return write_verdict(Findings(overall=found, **findings))


def test_the_gain_comes_first_then_the_raw_difference_then_certainty():
    found = verdict(overall((4.0, 1.0, 7.0, 0.009), gain=(3.0, 0.5, 5.5, 0.01)))
    assert [line.label for line in found.lines] == [
        "What training added",
        "As the checkpoints stand",
        "How certain",
    ]
    gain, raw, certain = (line.text for line in found.lines)
    assert gain == (
        "From step 0 to 500, out of domain (gta), GRPO gained more: GRPO 0.0 points, SFT -3.0, "
        "difference of gains +3.0 points (95 % interval +0.5 to +5.5, p = 0.010, after Holm over "
        "2 tests p = 0.020)."
    )
    assert raw == (
        "Out of domain (gta) at step 500, GRPO is ahead: GRPO 71.0 %, SFT 67.0 %, difference +4.0 "
        "points (95 % interval +1.0 to +7.0, p = 0.009, after Holm over 2 tests p = 0.020). Of "
        "that, +1.0 stood at step 0, where only the prompts differ."
    )
    assert certain.startswith("1000 phrases on 500 images, one training run of each method.")
    assert found.verdict.text.startswith(gain)


def test_one_run_of_each_method_is_two_checkpoints_and_supports_no_claim():
    found = verdict(overall((4.0, 1.0, 7.0, 0.009), gain=(4.0, 1.0, 7.0, 0.009)))
    assert found.title == "This GRPO checkpoint gained more than this SFT checkpoint out of domain"
    assert "These two checkpoints are in line with the claim" in found.verdict.text
    assert "supports" not in found.verdict.text


def test_several_runs_are_about_the_methods():
    found = verdict(overall((4.0, 1.0, 7.0, 0.009), gain=(4.0, 1.0, 7.0, 0.009)), seeds=3)
    assert found.title == "GRPO gained more than SFT out of domain"
    assert "This comparison, 3 seeds of each method, supports the claim" in found.verdict.text


def test_sft_may_gain_more():
    gain = (-4.0, -7.0, -1.0, 0.009)
    assert verdict(overall(gain, gain)).title.startswith("This SFT checkpoint gained more than")
    assert "speak against the claim" in verdict(overall(gain, gain)).verdict.text
    assert "contradicts the claim" in verdict(overall(gain, gain), seeds=3).verdict.text


def test_a_gain_counts_where_the_raw_difference_hides_it():
    """Raw +0.5, because GRPO's prompt put the base 10 points behind."""
    found = verdict(overall((0.5, -2.5, 3.5, 0.7), gain=(10.5, 7, 14, 1e-5), p_holm=0.9))
    assert found.verdict.overall.outcome == "grpo"
    assert "GRPO gained more" in found.lines[0].text
    assert "no lead is shown" in found.lines[1].text
    assert "does not show" not in found.verdict.text


def test_a_lead_that_the_prompts_gave_is_no_generalization():
    found = verdict(overall((4.0, 1.0, 7.0, 0.01), gain=NOTHING))
    assert found.title == "No difference in what training added is shown out of domain"
    assert "GRPO is ahead" in found.lines[1].text
    assert "nor does it show the opposite" in found.verdict.text.lower()
    assert "in line with" not in found.verdict.text


def test_what_holm_does_not_carry_is_not_claimed():
    """p = .034 at one of several steps."""
    found = verdict(overall((4, 0.3, 7.7, 0.034), gain=(4, 0.3, 7.7, 0.034), gain_p_holm=0.2))
    assert found.verdict.overall.outcome == "open"
    assert "P = 0.034 is one of 2 tests; after Holm p = 0.200." in found.verdict.text
    assert "does not show that reinforcement learning generalizes better" in found.verdict.text
    assert "leaves room for +0.3 as well as for +7.7 points" in found.verdict.text


def test_without_a_step_0_nothing_is_claimed_about_training():
    found = verdict(overall((4.0, 1.0, 7.0, 0.009), gain=None))
    assert found.title == "This GRPO checkpoint is ahead of this SFT checkpoint out of domain"
    assert found.lines[0].text.startswith("Unknown: without a step 0")
    assert "the difference may be one of prompts" in found.verdict.text
    assert found.verdict.overall.gain is None


def test_logs_that_state_no_terms_are_unsettled():
    gain = (37.8, 33.0, 42.0, 1e-9)
    found = verdict(overall(gain, gain), verified=False)
    assert found.title.startswith("Unsettled")
    assert found.verdict.status == "unverified"
    for claim in ("in line with", "supports", "contradicts"):
        assert claim not in found.verdict.text
    assert "these logs do not show that both methods were trained and asked on equal terms" in (
        found.lines[2].text
    )


def test_unequal_terms_come_before_everything():
    gain = (37.8, 33.0, 42.0, 1e-9)
    found = verdict(overall(gain, gain), unfair=["max_pixels: 1 != 2"])
    assert (found.title, found.verdict.status) == ("Unfair comparison", "unfair")
    assert found.verdict.text.startswith("UNFAIR COMPARISON: the contracts differ in max_pixels.")
    assert "stays open" in found.verdict.text


def test_a_lead_in_coordinates_alone_is_no_better_grounding():
    gain = (9.0, 5.0, 13.0, 0.001)
    for grounding, words in (
        ((0.5, -2.0, 3.0, 0.7), "grounding, is not shown to differ"),
        ((-5.0, -8.0, -2.0, 0.01), "grounding, is the other way round"),
    ):
        text = verdict(overall(gain, gain, grounding=grounding)).verdict.text
        assert "only as far as box coordinates go" in text
        assert words in text


def test_of_several_sets_each_is_named():
    gain = (4.0, 1.0, 7.0, 0.009)
    found = verdict(
        overall(gain, gain, datasets=("gta", "lisa")),
        sets=[overall(gain, gain), overall(gain, NOTHING, datasets=("lisa",), gain_p_holm=1.0)],
    )
    assert found.verdict.ood_dataset == "mean of gta, lisa"
    assert [one.outcome for one in found.verdict.sets] == ["grpo", "open"]
    assert "On gta alone, the difference of gains is +4.0 points" in found.verdict.text
    assert "On lisa alone, the difference of gains is 0.0 points" in found.verdict.text


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ((-6.0, -9.0, -3.0, 0.01), "GRPO carries more of its gain over"),
        ((6.0, 3.0, 9.0, 0.01), "GRPO carries less of its gain over"),
        ((-6.0, -13.0, 1.0, 0.09), "no difference is shown"),
    ],
)
def test_the_generalization_gaps_are_compared(difference, words):
    nothing = Estimate(points=0, ci_low=-1, ci_high=1, p_value=1)
    methods = [
        MethodStatistics(
            method=m, id_dataset="coco", ood_dataset="gta", step=500, forgetting=nothing,
            generalization_gap=Estimate(points=gap, ci_low=gap, ci_high=gap, p_value=1),
        )
        for m, gap in (("grpo", 2.0), ("sft", 8.0))
    ]  # fmt: skip
    line = GapDifference(
        id_datasets=["coco"],
        ood_datasets=["gta"],
        step=500,
        difference=Estimate(**dict(zip(Estimate.model_fields, difference, strict=True))),
    )
    found = statistics(methods=methods, gap_differences=[line])
    (sentence,) = details([], [], found, [])
    assert "minus that out of domain (gta): GRPO +2.0, SFT +8.0, difference" in sentence
    assert sentence.endswith(f"{words}.")


def shifted() -> LastStep:
    """From 48 of 60 right, SFT goes to 42, all shifted by 12 px; GRPO to 54."""
    results = [
        eval_result("sft", "d", 0, moved_rows(48)),
        eval_result("grpo", "d", 0, moved_rows(48)),
        eval_result("sft", "d", 2, moved_rows(42, shift_px=12)),
        eval_result("grpo", "d", 2, moved_rows(54)),
    ]
    return at_last_step(ResultsTable(results, 0.95), "d")


def told(last: LastStep, chosen: tuple[ChosenLine, ...] = ()) -> str:
    return " ".join(details([], [last], statistics(), list(chosen)))


def test_the_details_say_what_is_coordinates_and_what_is_grounding():
    text = told(shifted())
    assert "takes SFT from 0.0 to 70.0 % (+70.0 points" in text
    assert "Of SFT's -80.0 points since step 0, -70.0 (" in text
    assert "are box coordinates and -10.0 (" in text
    assert "Of the difference of +90.0 points between GRPO and SFT at step 2, +70.0 (" in text
    assert "GRPO's" not in text.split("One scale")[1]


def test_the_details_are_short_where_there_is_nothing_to_correct():
    results = [eval_result(m, "d", s, moved_rows(40)) for m in ("sft", "grpo") for s in (0, 2)]
    text = told(at_last_step(ResultsTable(results, 0.95), "d"))
    assert (
        "Correcting the box coordinates (one scale and offset per axis) recovers nothing "
        "significant out of domain (d): no scale and offset fit better than the boxes as they are."
    ) in text


def test_the_details_name_the_chosen_checkpoints_and_the_prompts_effect():
    found = Estimate(points=3.0, ci_low=1.0, ci_high=5.0, p_value=0.01)
    line = ChosenLine(
        dataset="d", grpo_steps=[40, 60], sft_steps=[20, 20], grpo_accuracy=70.0,
        sft_accuracy=67.0, difference=found, gain=None,
    )  # fmt: skip
    last = replace(shifted(), start_gap=Difference(4.0, 1.0, 7.0, 0.01))
    text = told(last, (line,))
    assert "asked with GRPO's prompt, stood +4.0 points (+1.0 to +7.0)" in text
    assert (
        "The checkpoints that validation chose (GRPO step 40, 60, SFT step 20, 20) differ by +3.0 "
        "points on d (+1.0 to +5.0, p = 0.010)."
    ) in text


def test_the_split_of_a_difference_is_told_with_its_parts():
    lead, rest = Difference(9.0, 5.0, 13.0, 0.001), Difference(0.0, -1.0, 1.0, 1.0)
    last = replace(shifted(), decomposition=Decomposition(lead, lead, rest))
    assert "+9.0 (+5.0 to +13.0) are box coordinates and 0.0 (-1.0 to +1.0) grounding." in told(
        last
    )


def test_points_that_round_to_zero_have_no_sign():
    assert [points(v) for v in (-0.04, 0.0, 0.04, 0.06, -1.25)] == ["0.0"] * 3 + ["+0.1", "-1.2"]
