"""evaluation/frames.py: which frame the boxes score best in, and when that stops a run."""

from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from vlm_r1.errors import ResultError
from vlm_r1.evaluation.frame_check import check_frame, check_rows, require_frame, sizes_or_none
from vlm_r1.inference.questions import Completion
from vlm_r1.rec.boxes import FRAMES, from_original
from vlm_r1.rec.results import ResultRow
from vlm_r1.stages import evaluate
from vlm_r1.stages.evaluate import Evaluation, Exam

IMAGE, INPUT = (600, 900), (308, 448)  # (height, width) before and after the resize


def true_boxes(count: int, seed: int = 0) -> np.ndarray:
    """Boxes in a 900 x 600 picture, each on its own picture."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(100, 300, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(60, 200, (count, 2))], axis=1)


def written_in(frame: str, truth: np.ndarray) -> np.ndarray:
    return from_original(truth, frame, IMAGE, INPUT)


def check(written, truth, assumed, *, input_size=INPUT, pictures=None, tests=1):
    sizes = [np.tile(size, (len(truth), 1)) for size in (IMAGE, input_size)]
    pictures = np.arange(len(truth)) if pictures is None else np.array(pictures)
    return check_frame(written, truth, *sizes, pictures, assumed, tests=tests)


@pytest.mark.parametrize("assumed", FRAMES)
@pytest.mark.parametrize("spoken", FRAMES)
def test_the_frame_the_model_speaks_is_found(spoken, assumed):
    truth = true_boxes(30)
    finding = check(written_in(spoken, truth), truth, assumed)
    assert (finding.best, finding.accuracy[spoken]) == (spoken, 100)
    assert list(finding.accuracy) == list(FRAMES)
    assert (finding.gain is None) == (spoken == assumed)


def test_another_frame_stops_the_run_with_the_scores_of_all():
    truth = true_boxes(40)
    written = written_in("thousand", truth)
    written[:10] = np.nan
    finding = check(written, truth, "input")
    with pytest.raises(ResultError) as error:
        require_frame(finding, "step-20.json")
    assert error.value.got.startswith(
        "step-20.json: boxes score 0.0 % as input pixels, 75.0 % as 0-1000, "
        "0.0 % as original pixels, 0.0 % as 0-1 (+75.0 points, interval +5"
    )
    assert "`thousand`" in error.value.do


def test_the_right_frame_passes():
    truth = true_boxes(40)
    require_frame(check(written_in("input", truth), truth, "input"), "a file")


def test_a_habit_of_answering_some_phrases_in_another_frame_passes():
    """55 % right in the frame, 8 % right in 0-1000: the whole score decides."""
    truth = true_boxes(100)
    written = np.full_like(truth, np.nan)
    written[:55] = written_in("input", truth[:55])
    written[55:63] = written_in("thousand", truth[55:63])
    finding = check(written, truth, "input")
    assert finding.best == "input"
    assert finding.accuracy["input"] == pytest.approx(55)
    assert finding.accuracy["thousand"] == pytest.approx(8)


@pytest.mark.parametrize("assumed", ["original", "input"])
def test_frames_that_are_one_and_the_same_tie(assumed):
    """A picture that is not resized: input pixels are original pixels."""
    truth = true_boxes(30)
    finding = check(truth, truth, assumed, input_size=IMAGE)
    assert (finding.best, finding.accuracy["input"]) == (assumed, 100)


def test_few_pictures_prove_nothing():
    """Six pictures, all better in 0-1000: the sign test's p is 2 / 2**6 = 0.031, and of three
    frames one may reach 0.05 / 3."""
    truth = true_boxes(7)
    written = written_in("thousand", truth)
    assert check(written[:6], truth[:6], "original").best == "original"
    assert check(written, truth, "original").best == "thousand"  # 2 / 2**7 = 0.0156


def test_rows_of_one_picture_count_once():
    truth = true_boxes(60)
    written = written_in("thousand", truth)
    assert check(written, truth, "original", pictures=np.arange(60) // 20).best == "original"
    assert check(written, truth, "original", pictures=[0] * 60).best == "original"


def test_a_run_of_many_units_is_stricter():
    truth = true_boxes(8)
    written = written_in("thousand", truth)
    assert check(written, truth, "original", tests=1).best == "thousand"
    assert check(written, truth, "original", tests=20).best == "original"


def test_a_frame_that_is_better_by_chance_does_not_stop_a_run():
    """Twelve rows right in one frame only, eight in the other only."""
    truth = true_boxes(20)
    written = np.where(
        np.arange(20)[:, None] < 12, written_in("thousand", truth), written_in("input", truth)
    )
    assert check(written, truth, "input").best == "input"


def test_without_sizes_only_their_frames_are_left_out():
    truth = true_boxes(30)
    pictures, image_sizes = np.arange(30), np.tile(IMAGE, (30, 1))
    none = check_frame(truth, truth, None, None, pictures, "original")
    assert none.accuracy == {"original": 100}
    some = check_frame(truth, truth, image_sizes, None, pictures, "original")
    assert list(some.accuracy) == ["original", "thousand", "unit"]
    with pytest.raises(ResultError, match="boxes in input pixels without the sizes"):
        check_frame(truth, truth, image_sizes, None, pictures, "input")


def test_sizes_are_known_for_all_rows_or_for_none():
    assert sizes_or_none([(1, 2), (3, 4)]).tolist() == [[1, 2], [3, 4]]
    assert sizes_or_none([(1, 2), None]) is None


def test_rows_are_read_from_their_completions():
    """The stored box is in original pixels, after the assumed frame; the text is as written."""
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
    finding = check_rows(rows, "original")
    assert finding.best == "input"
    assert finding.accuracy["input"] == pytest.approx(100 * 11 / 12)


def test_stage_evaluate_refuses_a_checkpoint_that_speaks_another_frame(
    monkeypatch, tmp_path, small_params
):
    """Asked in input pixels, it answers in 0-1000."""
    truth = true_boxes(20)
    records = pd.DataFrame(truth, columns=["x1", "y1", "x2", "y2"]).assign(
        expression="it",
        image=[f"{i}.png" for i in range(20)],
        record_id=[f"r{i}" for i in range(20)],
        split="ood",
        height=IMAGE[0],
        width=IMAGE[1],
    )
    texts = np.round(written_in("thousand", truth)).tolist()
    completions = [Completion(str(text), INPUT) for text in texts]
    asked = Mock(digest="digest")
    monkeypatch.setattr(evaluate, "Candidate", lambda *_: asked)
    monkeypatch.setattr(
        evaluate, "CompletionStore", lambda *_: Mock(read_all=lambda _: completions)
    )
    exam = Exam("street_test", records, questions=[], questions_digest="", meta={})
    evaluation = Evaluation(small_params, tmp_path, "sft", Mock(seed=42), [exam], Mock(), Mock())
    assert small_params.task.frame == "input"
    with pytest.raises(
        ResultError, match=r"sft/street_test/step-1\.json: boxes score .* 100\.0 % as 0-1000"
    ):
        evaluation.results(1, tmp_path)
