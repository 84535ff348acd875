"""Leakage: images that two datasets share, by id, by bytes or by perceptual hash.

Images of the training set must not occur in an evaluation set, nor those of a validation set, on
which checkpoints are chosen, in a test set. Two files count as one image if
their names contain the same COCO id, if they are the same path, if their bytes are equal, or if
their perceptual hashes are close (re-encoded, scaled, brightened; not if cropped by much, rotated,
mirrored or turned gray).
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Literal, TypeVar

from vlm_r1.data.validation.image_inspection import ImageFacts
from vlm_r1.data.validation.perceptual_hash import BITS, near_pairs

# COCO's image ids are the same in all years: COCO_train2014_000000581857.jpg is
# train2017/000000581857.jpg. The file names in refs append the annotation's number.
COCO_ID = re.compile(
    r"(?:COCO_(?:train|val|test)\d{4}_|(?:train|val|test)20\d\d/)(\d{12})(?:_\d+)?\."
)

Key = TypeVar("Key", str, bytes)


# training: an image that is trained on is evaluated on; choice: one on which checkpoints are chosen
# is tested on
Kind = Literal["training", "choice"]


@dataclass(frozen=True)
class Leak:
    """An image of one dataset that is also in another (`against`), and by which sign (`by`)."""

    image: str
    against: str
    against_image: str
    by: str
    kind: Kind

    def to_json_dict(self) -> dict[str, str]:
        """As written to validation.json."""
        return asdict(self)

    def seen_from(self, name: str) -> "Leak":
        """The same leak seen from the dataset `against`; `name` is this side's dataset."""
        return Leak(self.against_image, name, self.image, self.by, self.kind)


@dataclass(frozen=True)
class ImageSet:
    """The distinct images of a dataset; `facts` is empty if no file was opened."""

    name: str
    folder: Path
    images: list[str]
    facts: Mapping[Path, ImageFacts]

    def by_id(self) -> dict[str, list[str]]:
        """COCO id, or else absolute path -> the images with it."""
        return self._group(self._identity)

    def by_bytes(self) -> dict[str, list[str]]:
        """SHA-256 -> the images with it; without the images that were not opened."""
        return self._group(lambda image: self._facts_of(image).sha256)

    def by_phash(self) -> dict[bytes, list[str]]:
        """Perceptual hash -> the images with it; without the images that have none."""
        return self._group(lambda image: self._facts_of(image).phash)

    def _group(self, key_of: Callable[[str], Key | None]) -> dict[Key, list[str]]:
        groups: dict[Key, list[str]] = {}
        for image in self.images:
            key = key_of(image)
            if key is not None:
                groups.setdefault(key, []).append(image)
        return groups

    def _identity(self, image: str) -> str:
        coco = COCO_ID.search(image) or COCO_ID.search(f"{self.folder.name}/{image}")
        return f"coco:{coco[1]}" if coco else os.path.abspath(self.folder / image)

    def _facts_of(self, image: str) -> ImageFacts:
        return self.facts.get(self.folder / image, ImageFacts())


def shared_images(
    tested: ImageSet, other: ImageSet, near_duplicate_bits: int, kind: Kind = "training"
) -> list[Leak]:
    """Every pair of equal images once, with its strongest sign; in the order of `tested`."""
    leaks: dict[tuple[str, str], Leak] = {}
    for image, twin, by in _pairs(tested, other, near_duplicate_bits):
        leaks.setdefault((image, twin), Leak(image, other.name, twin, by, kind))
    position = {image: number for number, image in enumerate(tested.images)}
    return sorted(leaks.values(), key=lambda leak: position[leak.image])


def _pairs(tested: ImageSet, other: ImageSet, bits: int) -> Iterator[tuple[str, str, str]]:
    """(image of `tested`, image of `other`, sign), the strongest sign first."""
    yield from _equal_pairs(tested.by_id(), other.by_id(), "id")
    yield from _equal_pairs(tested.by_bytes(), other.by_bytes(), "bytes")
    ours, theirs = tested.by_phash(), other.by_phash()
    our_hashes, their_hashes = list(ours), list(theirs)
    for i, j, distance in near_pairs(our_hashes, their_hashes, bits):
        for image, twin in product(ours[our_hashes[i]], theirs[their_hashes[j]]):
            yield image, twin, f"phash ({distance} of {BITS} bits differ)"


def _equal_pairs(
    ours: dict[str, list[str]], theirs: dict[str, list[str]], by: str
) -> Iterator[tuple[str, str, str]]:
    for key in ours.keys() & theirs.keys():
        for image, twin in product(ours[key], theirs[key]):
            yield image, twin, by
