"""Perceptual hashes: close to each other for copies of an image, far apart for other images.

A hash consists of 256 bits and a thumbnail of 8 x 8 RGB pixels. The bits are those of Zauner,
"Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), section 3.2 (DCT), with
16 x 16 instead of 8 x 8 coefficients. They ignore color, and drawings of a few shapes on a plain
background may share them; so two copies must also agree in every pixel of their thumbnails. The
synthetic datasets contain no false pair (tests/test_data_leakage.py).
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from PIL import Image
from scipy.fft import dct

BITS = 256
MAX_COLOR_DIFFERENCE = 64  # of 255; a copy that is a quarter brighter differs by 50
MIN_SPREAD = 2.0  # standard deviation of gray, of 255; below it the bits would be noise
_SIDE_PX, _KEPT = 64, 16  # coefficients kept per axis: the lowest
_THUMBNAIL_PX = 8
_ROWS_PER_BLOCK, _COLUMNS_PER_BLOCK = 64, 4096  # of pairs: a block stays in a core's cache


def perceptual_hash(image: Image.Image) -> bytes | None:
    """224 bytes (32 of hash, 192 of thumbnail), stable under re-encoding, scaling and brightening.

    None for an image of nearly one tone, which has nothing to be recognized by.
    """
    small = image.convert("L").resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX)
    gray = np.asarray(small, dtype=np.float64)
    if gray.std() < MIN_SPREAD:
        return None
    cosines = _low_cosines()
    low = (cosines @ gray @ cosines.T).ravel()
    signs = np.packbits(low > np.median(low[1:])).tobytes()  # low[0] is the mean brightness
    size = (_THUMBNAIL_PX, _THUMBNAIL_PX)
    return signs + image.convert("RGB").resize(size, Image.Resampling.BOX).tobytes()


@cache
def _low_cosines() -> np.ndarray:
    """Rows of an orthonormal DCT matrix with the 16 lowest frequencies, (16, 64)."""
    return dct(np.eye(_SIDE_PX), axis=0, norm="ortho")[:_KEPT]


def near_pairs(a: list[bytes], b: list[bytes], bits: int) -> Iterator[tuple[int, int, int]]:
    """All pairs of copies: (index in a, index in b, number of differing bits, at most `bits`).

    Every pair is compared, on all cores, in the order of a. Evenly spread hashes, 82,000 x 82,000,
    took 29 s on two cores (benchmarks/near_duplicates.py); the more pairs agree in their first 64
    bits, the longer it takes.
    """
    if not a or not b:
        return
    (ours, our_colors), (theirs, their_colors) = _parts(a), _parts(b)
    starts = range(0, len(ours), _ROWS_PER_BLOCK)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = pool.map(
            lambda start: _close(ours[start : start + _ROWS_PER_BLOCK], theirs, bits), starts
        )
        for start, (rows, columns, distances) in zip(starts, found, strict=True):
            for i, j, distance in zip(rows + start, columns, distances, strict=True):
                apart = np.abs(our_colors[i] - their_colors[j]).max()
                if apart <= MAX_COLOR_DIFFERENCE:
                    yield int(i), int(j), int(distance)


def _close(ours: np.ndarray, theirs: np.ndarray, bits: int) -> tuple[np.ndarray, ...]:
    """Rows, columns and distances of the pairs of hashes with at most `bits` differing bits."""
    parts = []
    for start in range(0, len(theirs), _COLUMNS_PER_BLOCK):
        block = theirs[start : start + _COLUMNS_PER_BLOCK]
        # Few pairs are within the bound in their first 64 bits; only these are compared further.
        distance = np.bitwise_count(ours[:, None, 0] ^ block[None, :, 0])
        rows, columns = np.divmod(np.flatnonzero(distance <= bits), len(block))
        whole = np.bitwise_count(ours[rows] ^ block[columns]).sum(axis=-1, dtype=np.int64)
        near = whole <= bits
        parts.append((rows[near], columns[near] + start, whole[near]))
    rows, columns, distances = (np.concatenate(one) for one in zip(*parts, strict=True))
    order = np.lexsort((columns, rows))
    return rows[order], columns[order], distances[order]


def _parts(phashes: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Bits as uint64 (n, 4), and thumbnails as int16 (n, 192)."""
    table = np.frombuffer(b"".join(phashes), dtype=np.uint8).reshape(len(phashes), -1)
    hashes, colors = table[:, : BITS // 8], table[:, BITS // 8 :]
    return np.ascontiguousarray(hashes).view(np.uint64), colors.astype(np.int16)
