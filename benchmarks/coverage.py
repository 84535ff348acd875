"""How often intervals cover the truth and tests cry wolf, by simulation: docs/statistics.md.

Run from the project's root: OMP_NUM_THREADS=1 python -m benchmarks.coverage
Rows of an image correlate: shares are beta-binomial with correlation 0.5 (0 where it says so), one
to three rows an image.
"""

from collections.abc import Iterator

import numpy as np

from vlm_r1.stats.clustered import difference_over_images, mean_over_images
from vlm_r1.stats.curves import difference_of_gaps, mean_over_datasets
from vlm_r1.stats.intervals import paired_difference

EXPERIMENTS = 4000  # a coverage of 95 % is then sure to 0.7 points, an error rate of 5 % as well
METHODS_EXPERIMENTS = 1000


def main() -> None:
    """Print the tables, percent."""
    rng = np.random.default_rng(0)
    print("accuracy, images, correlation: coverage of the 95 % interval")
    for accuracy in (0.5, 0.9, 0.95, 0.98):
        for images in (60, 200):
            for correlation in (0.0, 0.5):
                found = accuracy_coverage(rng, accuracy, correlation, images)
                print(f"{accuracy:.0%}, {images}, {correlation}: {found:.1f}", flush=True)
    print("images, share only a right, share only b right: images that differ (mean); ", end="")
    print("p <= .05, p <= .005; coverage of the 95 % interval")
    for images, only_a, only_b in CASES:
        differ, at_05, at_005, covered = difference_rates(rng, images, only_a, only_b)
        shown = f"{images}, {only_a:.1%}, {only_b:.1%}: {differ:.0f}"
        print(f"{shown}; {at_05:.1f}, {at_005:.2f}; {covered:.1f}", flush=True)
    print("images, place between two checkpoints: coverage at equal FLOPs")
    for images in (60, 500):
        for place in (0.1, 0.5, 0.9):
            covered = interpolated_coverage(rng, images, place)
            print(f"{images}, {place}: {covered:.1f}", flush=True)
    print(
        "images: coverage, p <= .05 of gains, of generalization gaps, of the mean of two datasets"
    )
    for images in (60, 200, 500):
        found = [100 * rate for rate in gain_rates(rng, images)]
        print(f"{images}: " + ", ".join(f"{rate:.1f}" for rate in found), flush=True)
    print("training runs a method, spread of accuracies in points: coverage, half width")
    for runs in (1, 2, 3, 4, 8):
        covered, half_width = methods_coverage(rng, runs, spread=0.03)
        print(f"{runs}, 3: {covered:.1f}, {half_width:.1f} points", flush=True)


CASES = [  # images, shares of rows that only one of two got right; equal shares: no difference
    *((500, share, share) for share in (0.002, 0.004, 0.008, 0.016, 0.05, 0.2, 0.45)),
    *((60, 0.05, 0.05), (200, 0.01, 0.01)),
    *((500, 0.01, 0.03), (500, 0.002, 0.012), (200, 0.01, 0.05), (60, 0.02, 0.1), (500, 0.1, 0.16)),
]


def rows_of_images(rng: np.random.Generator, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each image (images,), and the image of each row."""
    rows = rng.integers(1, 4, size=images)
    return rows, np.repeat(np.arange(images), rows)


def correlated(
    rng: np.random.Generator, share: float, correlation: float, rows: np.ndarray
) -> np.ndarray:
    """Bool (n,), True with probability `share`, correlated among the rows of an image."""
    if correlation == 0:
        return rng.random(rows.sum()) < share
    strength = 1 / correlation - 1
    own = rng.beta(share * strength, (1 - share) * strength, size=len(rows))
    return rng.random(rows.sum()) < np.repeat(own, rows)


def accuracy_coverage(
    rng: np.random.Generator, accuracy: float, correlation: float, images: int
) -> float:
    """Percent of experiments in which the interval of an accuracy covers it."""
    covered = 0
    for _ in range(EXPERIMENTS):
        rows, which = rows_of_images(rng, images)
        hits = correlated(rng, accuracy, correlation, rows)
        low, high = mean_over_images(hits, which).share_interval(0.95)
        covered += low <= accuracy <= high
    return 100 * covered / EXPERIMENTS


def difference_rates(
    rng: np.random.Generator, images: int, only_a: float, only_b: float
) -> tuple[float, float, float, float]:
    """Images that differ (mean), percent with p <= .05 and <= .005, percent covered."""
    found = np.array([*difference_experiments(rng, images, only_a, only_b)])
    differ, p, covered = found.T
    return (
        float(differ.mean()),
        100 * float((p <= 0.05).mean()),
        100 * float((p <= 0.005).mean()),
        100 * float(covered.mean()),
    )


def difference_experiments(
    rng: np.random.Generator, images: int, only_a: float, only_b: float
) -> Iterator[tuple[int, float, bool]]:
    """Images that differ, p, and whether the interval covers, of each experiment."""
    for _ in range(EXPERIMENTS):
        rows, which = rows_of_images(rng, images)
        differs = correlated(rng, only_a + only_b, 0.5, rows)
        a = differs & (rng.random(len(which)) < only_a / (only_a + only_b))
        found = difference_over_images(a, differs & ~a, which)
        low, high = found.interval(0.95)
        yield np.count_nonzero(found.signed), found.p_value(), low <= only_a - only_b <= high


def interpolated_coverage(rng: np.random.Generator, images: int, place: float) -> float:
    """Percent of experiments whose interval covers a difference at equal FLOPs.

    One method is read at `place` (0-1) between two checkpoints that are right on 60 and 75 % of the
    rows, the other at a checkpoint with 65 %. An image is as hard for one as for the other: its
    chances are u^(1 / share - 1) with u uniform, whose mean is the share.
    """
    covered = 0
    for _ in range(EXPERIMENTS):
        rows, which = rows_of_images(rng, images)
        u = np.repeat(rng.random(images), rows)
        before, after, other = (rng.random(len(u)) < u ** (1 / x - 1) for x in (0.6, 0.75, 0.65))
        mixed = (1 - place) * before + place * after
        low, high = difference_over_images(mixed, other, which).interval(0.95)
        covered += low <= (1 - place) * 0.6 + place * 0.75 - 0.65 <= high
    return 100 * covered / EXPERIMENTS


GAINS = {"sft": (0.55, 0.70), "grpo": (0.70, 0.85)}  # accuracy at step 0 and at the last one


def gain_rates(rng: np.random.Generator, images: int) -> np.ndarray:
    """Share covered and share with p <= .05, of gains, of gaps and of the mean of two datasets.

    Both methods gain 15 points from different starts, on each of two datasets of so many images, so
    every difference is 0. An image is as hard for one method and step as for the other.
    """
    found = np.zeros(6)
    for _ in range(EXPERIMENTS):
        (inside, which_in), (outside, which_out) = (gains_of(rng, images) for _ in range(2))
        tests = (
            paired_difference(inside["grpo"], inside["sft"], which_in, 0.95),
            difference_of_gaps([(inside, which_in)], [(outside, which_out)], 0.95),
            mean_over_datasets(
                [
                    (inside["grpo"], inside["sft"], which_in),
                    (outside["grpo"], outside["sft"], which_out + images),
                ],
                0.95,
            ),
        )
        found += [x for one in tests for x in (one.low <= 0 <= one.high, one.p_value <= 0.05)]
    return found / EXPERIMENTS


def gains_of(rng: np.random.Generator, images: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Method -> hits at the last step minus hits at step 0, and the image of each row."""
    rows, which = rows_of_images(rng, images)
    u = np.repeat(rng.random(images), rows)
    return {
        method: np.subtract(
            *(1.0 * (rng.random(len(u)) < u ** (1 / share - 1)) for share in reversed(shares))
        )
        for method, shares in GAINS.items()
    }, which


def methods_coverage(rng: np.random.Generator, runs: int, spread: float) -> tuple[float, float]:
    """Percent of experiments in which the interval covers the methods' difference, which is 0.

    The second value is half the interval's mean width, points.

    500 images with one row, as hard for one method as for the other, 60 % right on average; the
    accuracy of a training run lies `spread` (0-1) around its method's.
    """
    covered, width = 0, 0.0
    for _ in range(METHODS_EXPERIMENTS):
        chance = rng.beta(0.6, 0.4, size=500)
        a, b = (
            rng.random((runs, 500)) < chance + rng.normal(0, spread, size=(runs, 1)) for _ in "ab"
        )
        low, high = difference_over_images(a, b, np.arange(500)).interval(0.95)
        covered += low <= 0 <= high
        width += high - low
    return 100 * covered / METHODS_EXPERIMENTS, 50 * width / METHODS_EXPERIMENTS


if __name__ == "__main__":
    main()
