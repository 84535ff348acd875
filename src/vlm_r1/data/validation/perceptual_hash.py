"""Perceptual hashes: close to each other for copies of an image, far apart for other images.

A hash consists of 256 bits and a thumbnail of 8 x 8 RGB pixels. The bits are those of Zauner,
"Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), section 3.2 (DCT), with
16 x 16 instead of 8 x 8 coefficients. They ignore color, and drawings of a few shapes on a plain
background may share them; so two copies must also agree in every pixel of their thumbnails. The
synthetic datasets contain no false pair (tests/test_data_leakage.py).
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image
from scipy.fft import dct

BITS = 256
MAX_COLOR_DIFFERENCE = 64  # of 255; a copy that is a quarter brighter differs by 50
MIN_SPREAD = 2.0  # standard deviation of gray, of 255; below it the bits would be noise
_SIDE_PX, _KEPT = 64, 16  # coefficients kept per axis: the lowest
_THUMBNAIL_PX = 8
_BYTES_PER_BLOCK = 2**26


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
    """All pairs of copies: (index in a, index in b, number of differing bits, at most `bits`)."""
    if not a or not b:
        return
    (ours, our_colors), (theirs, their_colors) = _parts(a), _parts(b)
    block = max(1, _BYTES_PER_BLOCK // theirs.nbytes)
    for start in range(0, len(ours), block):
        differing = ours[start : start + block, None, :] ^ theirs[None, :, :]
        distance = np.bitwise_count(differing).sum(axis=-1, dtype=np.int64)
        for i, j in np.argwhere(distance <= bits):
            apart = np.abs(our_colors[start + i] - their_colors[j]).max()
            if apart <= MAX_COLOR_DIFFERENCE:
                yield start + int(i), int(j), int(distance[i, j])


def _parts(phashes: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Bits as uint64 (n, 4), and thumbnails as int16 (n, 192)."""
    table = np.frombuffer(b"".join(phashes), dtype=np.uint8).reshape(len(phashes), -1)
    hashes, colors = table[:, : BITS // 8], table[:, BITS // 8 :]
    return np.ascontiguousarray(hashes).view(np.uint64), colors.astype(np.int16)
