"""Which coordinate space boxes score best in, and when that stops a run."""

from contextlib import nullcontext
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from vlm_r1.errors import ResultError
from vlm_r1.evaluation.coordinate_space_check import (
    CoordinateSpaceCheck,
    WrittenBoxes,
    check_coordinate_space,
    require_coordinate_space,
    sizes_or_none,
)
from vlm_r1.inference import evaluator
from vlm_r1.inference.evaluator import EvalSet, Evaluator
from vlm_r1.inference.questions import Completion
from vlm_r1.rec.boxes import COORDINATE_SPACES, from_original
from vlm_r1.rec.results import ResultRow

IMAGE, INPUT = (600, 900), (308, 448)  # (height, width) before and after the resize


def true_boxes(count: int, seed: int = 0) -> np.ndarray:
    """Boxes in a 900 x 600 image, each on its own image."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(100, 300, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(60, 200, (count, 2))], axis=1)


def written_in(coordinate_space: str, truth: np.ndarray) -> np.ndarray:
    return from_original(truth, coordinate_space, IMAGE, INPUT)


def check(written, truth, assumed, *, input_size=INPUT, images=None, tests=1):
    sizes = [np.tile(size, (len(truth), 1)) for size in (IMAGE, input_size)]
    images = np.arange(len(truth)) if images is None else np.array(images)
    boxes = WrittenBoxes(written, truth, images, assumed, *sizes)
    return check_coordinate_space(boxes, tests=tests)


@pytest.mark.parametrize("assumed", COORDINATE_SPACES)
@pytest.mark.parametrize("spoken", COORDINATE_SPACES)
def test_the_coordinate_space_the_model_writes_is_found(spoken, assumed):
    truth = true_boxes(30)
    finding = check(written_in(spoken, truth), truth, assumed)
    assert (finding.best, finding.accuracy[spoken]) == (spoken, 100)
    assert list(finding.accuracy) == list(COORDINATE_SPACES)
    assert (finding.gain is None) == (spoken == assumed)


def test_another_coordinate_space_stops_the_run_with_the_scores_of_all():
    truth = true_boxes(40)
    written = written_in("thousand", truth)
    written[:10] = np.nan
    finding = check(written, truth, "input")
    with pytest.raises(ResultError) as error:
        require_coordinate_space({"step-20.json": finding})
    assert error.value.got.startswith(
        "step-20.json: boxes score 0.0 % as input pixels, 75.0 % as 0-1000, "
        "0.0 % as original pixels, 0.0 % as 0-1 (+75.0 points, interval +5"
    )
    assert "`thousand`" in error.value.do


def test_the_right_coordinate_space_passes():
    truth = true_boxes(40)
    require_coordinate_space({"a file": check(written_in("input", truth), truth, "input")})


def test_a_few_answers_in_another_coordinate_space_pass():
    """55 % right in the coordinate space, 8 % right in 0-1000: the whole score decides."""
    truth = true_boxes(100)
    written = np.full_like(truth, np.nan)
    written[:55] = written_in("input", truth[:55])
    written[55:63] = written_in("thousand", truth[55:63])
    finding = check(written, truth, "input")
    assert finding.best == "input"
    assert finding.accuracy["input"] == pytest.approx(55)
    assert finding.accuracy["thousand"] == pytest.approx(8)


@pytest.mark.parametrize("assumed", ["original", "input"])
def test_identical_coordinate_spaces_tie(assumed):
    """An image that is not resized: input pixels are original pixels."""
    truth = true_boxes(30)
    finding = check(truth, truth, assumed, input_size=IMAGE)
    assert (finding.best, finding.accuracy["input"]) == (assumed, 100)


def test_few_images_prove_nothing():
    """Six images, all better in 0-1000: the sign test's p is 2 / 2**6 = 0.031, and of three
    coordinate spaces one may reach 0.05 / 3."""
    truth = true_boxes(7)
    written = written_in("thousand", truth)
    assert check(written[:6], truth[:6], "original").best == "original"
    assert check(written, truth, "original").best == "thousand"  # 2 / 2**7 = 0.0156


def test_rows_of_one_image_count_once():
    truth = true_boxes(60)
    written = written_in("thousand", truth)
    assert check(written, truth, "original", images=np.arange(60) // 20).best == "original"
    assert check(written, truth, "original", images=[0] * 60).best == "original"


def test_a_run_with_many_results_is_stricter():
    truth = true_boxes(8)
    written = written_in("thousand", truth)
    assert check(written, truth, "original", tests=1).best == "thousand"
    assert check(written, truth, "original", tests=20).best == "original"


def test_a_coordinate_space_that_is_better_by_chance_does_not_stop_a_run():
    """Twelve rows right in one coordinate space only, eight in the other only."""
    truth = true_boxes(20)
    written = np.where(
        np.arange(20)[:, None] < 12, written_in("thousand", truth), written_in("input", truth)
    )
    assert check(written, truth, "input").best == "input"


def test_without_sizes_only_their_coordinate_spaces_are_left_out():
    truth = true_boxes(30)
    images, image_sizes = np.arange(30), np.tile(IMAGE, (30, 1))
    none = check_coordinate_space(WrittenBoxes(truth, truth, images, "original"))
    assert none.accuracy == {"original": 100}
    some = check_coordinate_space(WrittenBoxes(truth, truth, images, "original", image_sizes))
    assert list(some.accuracy) == ["original", "thousand", "unit"]
    with pytest.raises(ResultError, match="boxes in input pixels without the sizes"):
        check_coordinate_space(WrittenBoxes(truth, truth, images, "input", image_sizes))


def test_sizes_are_known_for_all_rows_or_for_none():
    assert sizes_or_none([(1, 2), (3, 4)]).tolist() == [[1, 2], [3, 4]]
    assert sizes_or_none([(1, 2), None]) is None


def test_rows_are_read_from_their_completions():
    """The stored box is already in original pixels; the text is as the model wrote it."""
    truth = true_boxes(12).round()
    rows = [
        ResultRow(
            question="q",
            ground_truth=tuple(box),
            model_output=f"<answer>{np.round(written, 2).tolist()}</answer>",
            extracted_answer=(0, 0, 1, 1),
            correct=0,
            image=f"{i}.png",
            input_size=INPUT,
            image_size=IMAGE,
        )
        for i, (box, written) in enumerate(zip(truth, written_in("input", truth), strict=True))
    ]
    rows[0] = rows[0].model_copy(update={"model_output": "none"})
    finding = check_coordinate_space(WrittenBoxes.from_rows(rows, "original"))
    assert finding.best == "input"
    assert finding.accuracy["input"] == pytest.approx(100 * 11 / 12)


def in_both(both: int, only_better: int) -> CoordinateSpaceCheck:
    """`both` boxes are found as original and as input pixels, `only_better` as input alone.

    Input pixels are 10 % more than original ones: small boxes far from the corner are then missed.
    """
    near, far = (0, 0, 100, 100), (800, 400, 830, 430)
    truth = np.array([near] * both + [far] * only_better, dtype=float)
    size, bigger = (600, 900), (660, 990)
    written = from_original(truth, "input", size, bigger)
    sizes = [np.tile(one, (len(truth), 1)) for one in (size, bigger)]
    images = np.arange(len(truth))
    return check_coordinate_space(WrittenBoxes(written, truth, images, "original", *sizes))


def test_a_fifth_of_the_boxes_is_a_large_loss():
    """100 boxes found in input pixels: 80 found in original pixels too, or 81."""
    large, small = in_both(80, 20), in_both(81, 19)
    assert (large.accuracy["original"], large.accuracy["input"]) == (80, 100)
    assert (large.best, large.is_large) == ("input", True)
    assert (small.best, small.is_large) == ("input", False)
    with pytest.raises(ResultError, match="loses less than 20%"):
        require_coordinate_space({"step-0.json": large})
    require_coordinate_space({"step-0.json": small})


def test_the_loss_is_a_share_so_that_a_weak_model_is_refused_too():
    """12 of 200 found in 0-1000 and none in input pixels: 6 points, but all that it finds."""
    truth = true_boxes(200)
    written = np.full_like(truth, np.nan)
    written[:12] = written_in("thousand", truth[:12])
    finding = check(written, truth, "input")
    assert finding.gain.mean == pytest.approx(6)
    assert finding.is_large


def test_only_a_large_gain_at_every_step_is_a_configuration_error():
    large, small = in_both(60, 40), in_both(90, 10)
    right = check(true_boxes(40), true_boxes(40), "original")
    require_coordinate_space({"step-1.json": right, "step-2.json": large, "step-3.json": large})
    require_coordinate_space({"step-1.json": small, "step-2.json": large})
    require_coordinate_space({})
    with pytest.raises(
        ResultError, match=r"step-1\.json: boxes score 60\.0 % .*, and as much in step-2\.json"
    ):
        require_coordinate_space({"step-1.json": large, "step-2.json": large})


def test_the_result_file_says_what_the_check_found():
    assert check(true_boxes(40), true_boxes(40), "original").to_meta() is None
    meta = in_both(80, 20).to_meta()
    assert (meta["assumed"], meta["better"], meta["large"]) == ("original", "input", True)
    assert (meta["accuracy"]["input"], meta["gain"]) == (100, pytest.approx(20))
    assert 0 < meta["ci_low"] < 20 < meta["ci_high"]


TRUTH = true_boxes(20)


@pytest.fixture
def asked(monkeypatch, tmp_path, small_params):
    """spaces -> an evaluator whose checkpoint of step n answers in the n-th of them."""

    def evaluator_of(*spaces: str) -> Evaluator:
        records = pd.DataFrame(TRUTH, columns=["x1", "y1", "x2", "y2"]).assign(
            expression="it",
            image=[f"{i}.png" for i in range(20)],
            record_id=[f"r{i}" for i in range(20)],
            split="ood",
            height=IMAGE[0],
            width=IMAGE[1],
        )
        answers = iter(spaces)

        def store(*_):
            texts = np.round(written_in(next(answers), TRUTH)).tolist()
            completions = [Completion(str(text), INPUT) for text in texts]
            return Mock(read_all=lambda _: completions)

        monkeypatch.setattr(evaluator, "Checkpoint", lambda *_: nullcontext(Mock(digest="digest")))
        monkeypatch.setattr(evaluator, "CompletionStore", store)
        eval_set = EvalSet("street_test", records, questions=[], questions_digest="", meta={})
        contract = Mock(seed=42, model_dump=dict)
        return Evaluator(small_params, tmp_path, "sft", contract, [eval_set], Mock(), Mock())

    return evaluator_of


def test_the_base_in_another_coordinate_space_is_refused(asked, tmp_path, small_params):
    """Asked in input pixels, it answers in 0-1000."""
    assert small_params.task.coordinate_space == "input"
    with pytest.raises(
        ResultError, match=r"sft/street_test/step-0\.json: boxes score .* 100\.0 % as 0-1000"
    ):
        asked("thousand").evaluate_checkpoint(0, tmp_path)


def test_a_later_checkpoint_in_another_coordinate_space_is_marked(asked, tmp_path, caplog):
    [found] = asked("thousand").evaluate_checkpoint(1, tmp_path)
    assert found.result.meta["coordinate_space_check"]["better"] == "thousand"
    assert found.result.accuracy == 0
    assert "step-1.json: boxes score 0.0 % as input pixels, 100.0 % as 0-1000" in caplog.text
    [right] = asked("input").evaluate_checkpoint(1, tmp_path)
    assert right.result.meta["coordinate_space_check"] is None


def test_a_run_in_another_coordinate_space_at_every_trained_step_is_refused(asked, tmp_path):
    def run(*spaces):
        checkpoints = asked(*spaces)
        checkpoints.require_coordinate_space(
            [
                (step, one.eval_set.name, one.check)
                for step in range(3)
                for one in checkpoints.evaluate_checkpoint(step, tmp_path)
            ]
        )

    run("input", "input", "thousand")
    with pytest.raises(ResultError, match=r"step-1\.json: .*, and as much in .*step-2\.json"):
        run("input", "thousand", "thousand")
