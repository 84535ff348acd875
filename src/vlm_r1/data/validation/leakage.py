"""Pictures that two datasets share: by identity, by their bytes, and by how they look.

A picture that was trained on must not be tested on. Two files are one picture if both names hold
the same COCO id or are one path, if their bytes are the same, or if their fingerprints are near
(encoded anew, scaled, brightened; not cropped by much, turned, mirrored or without colour).
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vlm_r1.data.validation.image_inspection import Finding
from vlm_r1.data.validation.perceptual_hash import BITS, near_pairs

# COCO counts pictures through all its years: COCO_train2014_000000581857.jpg is
# train2017/000000581857.jpg. Refs add an annotation's number behind the picture's.
COCO = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_|(?:train|val|test)20\d\d/)(\d{12})(?:_\d+)?\.")


@dataclass(frozen=True)
class Leak:
    """A picture of one dataset, and the same picture in another (`against`)."""

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
class Album:
    """The distinct pictures of a dataset; `findings` is empty if no file was opened."""

    name: str
    folder: Path
    pictures: list[str]
    findings: Mapping[Path, Finding]

    def known(self, fact: str) -> dict[str, list[str]]:
        """What is known of the pictures (sha256 or look) -> those of which it is."""
        found: dict[str, list[str]] = {}
        for picture in self.pictures:
            finding = self.findings.get(self.folder / picture)
            if finding is not None and getattr(finding, fact) is not None:
                found.setdefault(getattr(finding, fact), []).append(picture)
        return found

    def identities(self) -> dict[str, list[str]]:
        """COCO id or path -> the pictures that have it."""
        found: dict[str, list[str]] = {}
        for picture in self.pictures:
            match = COCO.search(picture) or COCO.search(f"{self.folder.name}/{picture}")
            identity = f"coco:{match[1]}" if match else os.path.abspath(self.folder / picture)
            found.setdefault(identity, []).append(picture)
        return found


def shared_pictures(tested: Album, other: Album, near_duplicate_bits: int) -> list[Leak]:
    """Every pair of pictures that are one, with the plainest sign of it; in `tested`'s order."""
    leaks: dict[tuple[str, str], Leak] = {}
    for picture, twin, by in _signs(tested, other, near_duplicate_bits):
        leaks.setdefault((picture, twin), Leak(picture, other.name, twin, by))
    place = {picture: number for number, picture in enumerate(tested.pictures)}
    return sorted(leaks.values(), key=lambda leak: place[leak.image])


def _signs(tested: Album, other: Album, bits: int) -> Iterator[tuple[str, str, str]]:
    for by, ours, theirs in (
        ("id", tested.identities(), other.identities()),
        ("bytes", tested.known("sha256"), other.known("sha256")),
    ):
        for value in ours.keys() & theirs.keys():
            for picture in ours[value]:
                yield from ((picture, twin, by) for twin in theirs[value])
    ours, theirs = tested.known("look"), other.known("look")
    looks, their_looks = list(ours), list(theirs)
    for i, j, distance in near_pairs(looks, their_looks, bits):
        for picture in ours[looks[i]]:
            for twin in theirs[their_looks[j]]:
                yield picture, twin, f"look ({distance} of {BITS} bits differ)"
