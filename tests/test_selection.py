"""evaluation/selection.py: what choosing a checkpoint on the test set would have claimed."""

import numpy as np
import pytest

from vlm_r1.errors import ResultError
from vlm_r1.evaluation.selection import ValidationScore, leaking_choice


def test_what_a_leaking_choice_would_have_claimed():
    """Validation takes step 2, where the test has 1 of 4 right; step 3 has 3 of 4."""
    validation = {step: ValidationScore(accuracy, 0.5) for step, accuracy in ((1, 50), (2, 70))}
    hits = {1: np.array([1, 1, 0, 0]), 2: np.array([1, 0, 0, 0])}
    found = leaking_choice(
        validation | {3: ValidationScore(60, 0.6)}, hits | {3: np.array([1, 1, 1, 0])}
    )
    assert found == (2, 25.0, 3, 75.0)
    assert found.overclaim == 50


def test_where_both_choose_alike_nothing_is_overclaimed():
    found = leaking_choice({20: ValidationScore(50, 0.5)}, {20: np.array([1, 0])})
    assert found == (20, 50.0, 20, 50.0)
    assert found.overclaim == 0


def test_ties_on_validation_go_to_mean_iou_ties_on_the_test_to_the_earliest_step():
    validation = {1: ValidationScore(60, 0.4), 2: ValidationScore(60, 0.5)}
    found = leaking_choice(validation, {1: np.array([1, 0]), 2: np.array([1, 0])})
    assert (found.chosen_step, found.best_step) == (2, 1)


@pytest.mark.parametrize("hits", [[], [1.0, np.nan]])
def test_a_test_set_that_is_empty_or_broken_is_refused(hits):
    with pytest.raises(ResultError, match="got step 1: no hits, or a hit that is not a number"):
        leaking_choice({1: ValidationScore(50, 0.5)}, {1: np.array(hits)})


def test_both_ways_choose_among_the_same_steps():
    with pytest.raises(ResultError, match=r"got steps \[1\] on validation, \[2\] on the test set"):
        leaking_choice({1: ValidationScore(50, 0.5)}, {2: np.ones(2)})
    with pytest.raises(ResultError, match=r"steps \[\] on validation"):
        leaking_choice({}, {})
