"""Linear interpolation of a curve's hits between two of its points, row by row."""

from collections.abc import Sequence

import numpy as np

from vlm_r1.errors import ResultError


def neighbor_weights(places: Sequence[float], at: float) -> np.ndarray:
    """Weights (places,) that sum to 1: of the two places around `at`, the nearer one more.

    Raises:
        ResultError: places not rising, or `at` outside of them.

    Example: places 0, 10, 30 at 15 -> 0, 0.75, 0.25
    """
    x = np.asarray(places, dtype=np.float64)
    if len(x) < 2 or (np.diff(x) <= 0).any() or not x[0] <= at <= x[-1]:
        raise ResultError(
            got=f"a value at {at:g} of a curve at {[float(f'{place:.6g}') for place in places]}",
            need="two or more rising places, and a value between the first and the last",
            because="outside of its points a curve is unknown",
            do="compare the methods at costs that both have had",
        )
    right = max(1, int(np.searchsorted(x, at)))
    share = (at - x[right - 1]) / (x[right] - x[right - 1])
    weights = np.zeros(len(x))
    weights[right - 1 : right + 1] = 1 - share, share
    return weights
