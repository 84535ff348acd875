"""Images that two datasets share: by identity, by their bytes, and by how they look.

An image that was trained on must not be tested on. Two files are one image if both names hold
the same COCO id or are one path, if their bytes are the same, or if their fingerprints are near
(encoded anew, scaled, brightened; not cropped by much, turned, mirrored or without color).
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vlm_r1.data.validation.image_inspection import Finding
from vlm_r1.data.validation.perceptual_hash import BITS, near_pairs

# COCO counts images through all its years: COCO_train2014_000000581857.jpg is
# train2017/000000581857.jpg. Refs add an annotation's number behind the image's.
COCO = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_|(?:train|val|test)20\d\d/)(\d{12})(?:_\d+)?\.")


@dataclass(frozen=True)
class Leak:
    """An image of one dataset, and the same image in another (`against`)."""

    image: str
    against: str
    against_image: str
    by: str

    def to_json_dict(self) -> dict[str, str]:
        """As validation.json holds it."""
        return asdict(self)

    def seen_from(self, name: str) -> "Leak":
        """The same leak from the other side, whose partner is called `name`."""
        return Leak(self.against_image, name, self.image, self.by)


@dataclass(frozen=True)
class ImageSet:
    """The distinct images of a dataset; `findings` is empty if no file was opened."""

    name: str
    folder: Path
    images: list[str]
    findings: Mapping[Path, Finding]

    def known(self, fact: str) -> dict[str, list[str]]:
        """What is known of the images (sha256 or look) -> those of which it is."""
        found: dict[str, list[str]] = {}
        for image in self.images:
            finding = self.findings.get(self.folder / image)
            if finding is not None and getattr(finding, fact) is not None:
                found.setdefault(getattr(finding, fact), []).append(image)
        return found

    def identities(self) -> dict[str, list[str]]:
        """COCO id or path -> the images that have it."""
        found: dict[str, list[str]] = {}
        for image in self.images:
            match = COCO.search(image) or COCO.search(f"{self.folder.name}/{image}")
            identity = f"coco:{match[1]}" if match else os.path.abspath(self.folder / image)
            found.setdefault(identity, []).append(image)
        return found


def shared_images(tested: ImageSet, other: ImageSet, near_duplicate_bits: int) -> list[Leak]:
    """Every pair of images that are one, with the plainest sign of it; in `tested`'s order."""
    leaks: dict[tuple[str, str], Leak] = {}
    for image, twin, by in _signs(tested, other, near_duplicate_bits):
        leaks.setdefault((image, twin), Leak(image, other.name, twin, by))
    place = {image: number for number, image in enumerate(tested.images)}
    return sorted(leaks.values(), key=lambda leak: place[leak.image])


def _signs(tested: ImageSet, other: ImageSet, bits: int) -> Iterator[tuple[str, str, str]]:
    for by, ours, theirs in (
        ("id", tested.identities(), other.identities()),
        ("bytes", tested.known("sha256"), other.known("sha256")),
    ):
        for value in ours.keys() & theirs.keys():
            for image in ours[value]:
                yield from ((image, twin, by) for twin in theirs[value])
    ours, theirs = tested.known("look"), other.known("look")
    looks, their_looks = list(ours), list(theirs)
    for i, j, distance in near_pairs(looks, their_looks, bits):
        for image in ours[looks[i]]:
            for twin in theirs[their_looks[j]]:
                yield image, twin, f"look ({distance} of {BITS} bits differ)"
