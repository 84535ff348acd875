"""Variance of repeated answers, split into within and between questions. Numpy only."""

from typing import NamedTuple

import numpy as np


class VarianceSplit(NamedTuple):
    """Variances of a single sampled answer's hit (0 or 1), unbiased; None if not estimable.

    within: how much the answers to one question vary. between: how much questions differ in their
    chance of a right answer.
    """

    within: float | None
    between: float | None


def split_variance(hits: np.ndarray) -> VarianceSplit:
    """Split the variance of `hits`, (questions, repeats), as a one-way analysis of variance does.

    within is the mean over questions of k / (k - 1) * p (1 - p), between the variance of the
    questions' p minus within / k, at least 0; k repeats, p a question's share of right answers.
    Source: Searle, Casella and McCulloch (1992), Variance Components, section 3.6.

    Example: [[1, 1], [0, 0], [1, 0], [1, 0]] -> within 0.25, between 1/6 - 0.25/2 = 0.0417
    """
    questions, repeats = hits.shape
    if repeats < 2 or questions < 2:
        return VarianceSplit(None, None)
    p = hits.mean(axis=1)
    within = float((p * (1 - p)).mean() * repeats / (repeats - 1))
    return VarianceSplit(within, max(0.0, float(p.var(ddof=1)) - within / repeats))
