"""Speed of the bootstrap over images against a plain Python loop over resamples, in one run.

Run from the project's root, on one core: OMP_NUM_THREADS=1 python -m benchmarks.bootstrap
CPU seconds are printed, so that other work on the machine does not count. Named so because a
statistics.py run by its path would hide the standard library's module of that name.
"""

import random
import time
from collections.abc import Callable

import numpy as np

from vlm_r1.stats.intervals import Resampling, interval, paired_difference

ROWS = 10_000
RESAMPLES = 10_000
LOOPED = 100  # resamples of the plain loop that are timed


def main() -> None:
    """Print CPU seconds for 10,000 resamples of 10,000 rows, and how many times faster."""
    rng = np.random.default_rng(0)
    hits, others = rng.random((2, ROWS)) < 0.6
    resampling = Resampling(resamples=RESAMPLES)
    for count in (ROWS, ROWS // 2):
        images = rng.permutation(np.arange(ROWS) % count)
        loop_s = cpu_s(lambda p=images: plain_means(hits, p, LOOPED)) * RESAMPLES / LOOPED
        ours_s = cpu_s(lambda p=images: interval(hits, p, resampling))
        paired_s = cpu_s(lambda p=images: paired_difference(hits, others, p, resampling))
        print(
            f"{ROWS} rows on {count} images, {RESAMPLES} resamples: interval {ours_s:.2f} s, "
            f"paired difference {paired_s:.2f} s; plain loop {loop_s:.1f} s "
            f"({LOOPED} resamples timed), {loop_s / ours_s:.0f} times as long"
        )


def plain_means(values: np.ndarray, images: np.ndarray, resamples: int) -> list[float]:
    """The same means without numpy: draw images, add up their rows."""
    of_image: dict[int, list[float]] = {}
    for value, image in zip(values.tolist(), images.tolist(), strict=True):
        of_image.setdefault(image, []).append(value)
    groups = list(of_image.values())
    means = []
    for _ in range(resamples):
        drawn = random.choices(groups, k=len(groups))
        means.append(sum(map(sum, drawn)) / sum(map(len, drawn)))
    return means


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of this process for one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
