"""Fingerprints of images: copies have ones that are near, other images do not.

A fingerprint is a perceptual hash of 256 bits and a thumbnail of 8 x 8 RGB pixels. The hash is that
of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), section 3.2
(DCT), with 16 x 16 instead of 8 x 8 coefficients. It sees no colors, and drawings of a few shapes
on plain ground may share it; so images whose hashes are near must also agree in every pixel of
their thumbnails. The drawn worlds hold no such pair (tests/test_data_leakage.py).
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image
from scipy.fft import dct

BITS = 256
MAX_COLOR_DIFFERENCE = 64  # of 255; a copy that is a quarter brighter differs by 50
MIN_SPREAD = 2.0  # standard deviation of gray, of 255; below it the signs are those of noise
_SIDE_PX, _KEPT = 64, 16  # coefficients kept per axis: the lowest
_THUMBNAIL_PX = 8
_BYTES_A_BLOCK = 2**26


def fingerprint(image: Image.Image) -> bytes | None:
    """224 bytes that hardly change when an image is encoded anew, scaled or made brighter.

    None for an image of one tone: it has nothing to be recognized by.
    """
    small = image.convert("L").resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX)
    gray = np.asarray(small, dtype=np.float64)
    if gray.std() < MIN_SPREAD:
        return None
    waves = _low_cosines()
    low = (waves @ gray @ waves.T).ravel()
    signs = np.packbits(low > np.median(low[1:])).tobytes()  # the first is the mean brightness
    size = (_THUMBNAIL_PX, _THUMBNAIL_PX)
    return signs + image.convert("RGB").resize(size, Image.Resampling.BOX).tobytes()


@cache
def _low_cosines() -> np.ndarray:
    """(16, 64): the lowest cosines of an orthonormal DCT."""
    return dct(np.eye(_SIDE_PX), axis=0, norm="ortho")[:_KEPT]


def near_pairs(a: list[bytes], b: list[bytes], bits: int) -> Iterator[tuple[int, int, int]]:
    """(index in a, index in b, bits of their hashes that differ, at most `bits`) of all copies."""
    if not a or not b:
        return
    (ours, our_colors), (theirs, their_colors) = _parts(a), _parts(b)
    block = max(1, _BYTES_A_BLOCK // theirs.nbytes)
    for start in range(0, len(ours), block):
        differing = ours[start : start + block, None, :] ^ theirs[None, :, :]
        distance = np.bitwise_count(differing).sum(axis=-1, dtype=np.int64)
        for i, j in np.argwhere(distance <= bits):
            apart = np.abs(our_colors[start + i] - their_colors[j]).max()
            if apart <= MAX_COLOR_DIFFERENCE:
                yield start + int(i), int(j), int(distance[i, j])


def _parts(fingerprints: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes (n, 4) of 64 bits each, and thumbnails (n, 192) of signed numbers."""
    table = np.frombuffer(b"".join(fingerprints), dtype=np.uint8).reshape(len(fingerprints), -1)
    hashes, colors = table[:, : BITS // 8], table[:, BITS // 8 :]
    return np.ascontiguousarray(hashes).view(np.uint64), colors.astype(np.int16)
