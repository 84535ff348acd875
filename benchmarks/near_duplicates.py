"""Time to find the near-duplicates among 82,000 x 82,000 perceptual hashes.

Run from the project's root: OMP_NUM_THREADS=1 python -m benchmarks.near_duplicates

The hashes are random but for 100 pairs of copies, of which each differs in 8 bits. The hashes of
photos are less evenly spread, so that more pairs than here are compared beyond their first 64 bits.
"""

import argparse
import os
import time

import numpy as np

from vlm_r1.config import standalone
from vlm_r1.data.validation.perceptual_hash import near_pairs

COPIES, BYTES = 100, 224


def main() -> None:
    """Print the seconds and the pairs found; fails if it found other pairs than the copies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=82_000, help="on each side")
    images = parser.parse_args().images
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, images, BYTES), dtype=np.uint8)
    b[:COPIES] = a[:COPIES]
    b[:COPIES, 5] ^= 0xFF
    bits = standalone.VALIDATION.near_duplicate_bits
    ours, theirs = [row.tobytes() for row in a], [row.tobytes() for row in b]
    started = time.perf_counter()
    found = list(near_pairs(ours, theirs, bits))
    wall_s = time.perf_counter() - started
    print(f"{images:,} x {images:,}, {os.cpu_count()} cores: {wall_s:.1f} s, {len(found)} pairs")
    assert found == [(i, i, 8) for i in range(COPIES)]


if __name__ == "__main__":
    main()
