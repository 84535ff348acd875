"""How often 95 % intervals cover the truth, by simulation: the tables of docs/statistics.md.

Run from the project's root: OMP_NUM_THREADS=1 python -m benchmarks.coverage
"""

import numpy as np

from vlm_r1.stats.bootstrap import resample_difference, resample_mean
from vlm_r1.stats.intervals import Resampling

EXPERIMENTS = 1000
RESAMPLES = 1000


def main() -> None:
    """Print coverage in percent; with so many experiments it is sure to 1.4 points."""
    rng = np.random.default_rng(0)
    print("accuracy, correlation of rows on an image, images: percentile, ours")
    for accuracy in (0.5, 0.9, 0.95):
        for images in (60, 200):
            found = over_images(rng, accuracy, 0.5, images)
            print(f"{accuracy:.0%}, 0.5, {images}: {found[0]:.1f}, {found[1]:.1f}", flush=True)
    print("seeds a method, spread of accuracies in points: coverage of the difference, half width")
    for seeds in (1, 2, 3, 4, 8):
        covered, half_width = over_seeds(rng, seeds, spread=0.03)
        print(f"{seeds}, 3: {covered:.1f}, {half_width:.1f} points", flush=True)


def over_images(
    rng: np.random.Generator, accuracy: float, correlation: float, images: int
) -> tuple[float, float]:
    """Percent of experiments covered by the percentile interval, and by ours.

    One to three rows an image, hits beta-binomial.
    """
    strength = 1 / correlation - 1
    covered = np.zeros(2)
    for experiment in range(EXPERIMENTS):
        rows = rng.integers(1, 4, size=images)
        own = rng.beta(accuracy * strength, (1 - accuracy) * strength, size=images)
        hits = rng.random(rows.sum()) < np.repeat(own, rows)
        which = np.repeat(np.arange(images), rows)
        found = resample_mean(hits, which, Resampling(0.95, RESAMPLES, experiment))
        for i, (low, high) in enumerate(
            [np.quantile(found.draws, [0.025, 0.975]), found.interval(0.95)]
        ):
            covered[i] += low <= accuracy <= high
    percentile, ours = 100 * covered / EXPERIMENTS
    return float(percentile), float(ours)


def over_seeds(rng: np.random.Generator, seeds: int, spread: float) -> tuple[float, float]:
    """Percent of experiments in which the interval covers the methods' difference, which is 0.

    The second value is half the interval's mean width, points.

    500 images with one row, as hard for one method as for the other, 60 % right on average; the
    accuracy of a training run lies `spread` (0-1) around its method's.
    """
    covered, width = 0, 0.0
    for experiment in range(EXPERIMENTS):
        chance = rng.beta(0.6, 0.4, size=500)
        a, b = (
            rng.random((seeds, 500)) < chance + rng.normal(0, spread, size=(seeds, 1)) for _ in "ab"
        )
        resampling = Resampling(0.95, RESAMPLES, experiment)
        low, high = resample_difference(a, b, np.arange(500), resampling).interval(0.95)
        covered += low <= 0 <= high
        width += high - low
    return 100 * covered / EXPERIMENTS, 50 * width / EXPERIMENTS


if __name__ == "__main__":
    main()
