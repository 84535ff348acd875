"""Facts about image files, and their cache."""

import os

import numpy as np
import pytest
from PIL import Image

from vlm_r1.data.images import image_digest
from vlm_r1.data.validation import image_inspection as inspection
from vlm_r1.data.validation.image_inspection import inspect, inspect_all
from vlm_r1.data.validation.perceptual_hash import BITS, near_pairs, perceptual_hash


def noise(seed=0, size=(40, 30)):
    values = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_facts_are_size_mode_and_digest(tmp_path):
    noise().convert("L").save(tmp_path / "a.png")

    facts = inspect(tmp_path / "a.png")

    assert (facts.width, facts.height, facts.mode) == (40, 30, "L")
    assert (facts.fault, facts.suffix_fault, facts.turned) == (None, None, False)
    assert facts.sha256 == image_digest(tmp_path / "a.png")


def test_the_size_of_a_turned_image_is_that_of_the_upright_one(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    noise().save(tmp_path / "a.jpg", exif=exif)

    facts = inspect(tmp_path / "a.jpg")

    assert (facts.width, facts.height, facts.turned) == (30, 40, True)


@pytest.mark.parametrize(
    ("name", "kind", "fault"),
    [
        ("a.jpg", "PNG", "PNG in a file named a.jpg"),
        ("a.txt", "PNG", "PNG in a file named a.txt"),
        ("a.JPEG", "JPEG", None),
        ("a", "PNG", None),
        ("a.jpg", "MPO", None),  # what telephones call JPEG
    ],
)
def test_suffix_is_compared_with_the_format(tmp_path, name, kind, fault):
    noise().save(tmp_path / name, kind)

    assert inspect(tmp_path / name).suffix_fault == fault


def test_second_run_opens_only_what_changed(tmp_path, monkeypatch):
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for seed, path in enumerate(paths[:3]):
        noise(seed).save(path)
    opened = []
    monkeypatch.setattr(inspection, "inspect", lambda path: opened.append(path) or inspect(path))
    cache = tmp_path / "cache/images.sqlite"

    first = inspect_all(paths, cache)
    assert sorted(opened) == paths
    assert first[paths[3]].fault == "3.png: no such file"
    opened.clear()
    noise(9).save(paths[0])  # changed
    noise(3).save(paths[3])
    second = inspect_all(paths, cache)

    assert sorted(opened) == [paths[0], paths[3]]
    assert second[paths[3]].fault is None
    assert second[paths[0]].sha256 != first[paths[0]].sha256
    assert [second[path] for path in paths[1:3]] == [first[path] for path in paths[1:3]]


def test_file_of_the_same_size_and_another_time_is_opened_again(tmp_path):
    path, cache = tmp_path / "a.bmp", tmp_path / "images.sqlite"
    noise(1).save(path)
    before = inspect_all([path], cache)[path]
    noise(2).save(path)
    os.utime(path, ns=(1, 1))

    assert inspect_all([path], cache)[path].sha256 != before.sha256


def test_facts_from_before_an_interruption_are_kept(tmp_path, monkeypatch):
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for seed, path in enumerate(paths):
        noise(seed).save(path)
    monkeypatch.setattr(inspection, "COMMIT_EVERY", 1)
    opened = []

    def stop(path):
        if path == paths[4]:
            raise KeyboardInterrupt
        opened.append(path)
        return inspect(path)

    monkeypatch.setattr(inspection, "inspect", stop)
    with pytest.raises(KeyboardInterrupt):
        inspect_all(paths, tmp_path / "images.sqlite")
    monkeypatch.setattr(inspection, "inspect", lambda path: opened.append(path) or inspect(path))
    opened.clear()
    inspect_all(paths, tmp_path / "images.sqlite")

    assert paths[4] in opened
    assert not {paths[0], paths[1], paths[2]} & set(opened)


def test_near_pairs_are_those_within_the_bits():
    colors = bytes(192)
    zero, three = bytes(32) + colors, bytes([0b111, *[0] * 31]) + colors
    far = bytes([255] * 32) + colors
    other = bytes(32) + bytes([65, *[0] * 191])  # one channel of one pixel too far

    assert list(near_pairs([zero, far], [three, zero], bits=3)) == [(0, 0, 3), (0, 1, 0)]
    assert list(near_pairs([zero], [three], bits=2)) == []
    assert list(near_pairs([], [zero], bits=2)) == []
    assert list(near_pairs([zero], [other], bits=BITS)) == []
    assert list(near_pairs([zero], [far], bits=BITS)) == [(0, 0, BITS)]


def test_near_pairs_of_many_blocks_are_those_of_one(monkeypatch):
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(32) + bytes(192) for _ in range(60)]
    whole = list(near_pairs(hashes, hashes, 110))
    monkeypatch.setattr("vlm_r1.data.validation.perceptual_hash._ROWS_PER_BLOCK", 7)
    monkeypatch.setattr("vlm_r1.data.validation.perceptual_hash._COLUMNS_PER_BLOCK", 11)

    assert list(near_pairs(hashes, hashes, 110)) == whole
    assert len(whole) > 60


def test_hash_is_the_sign_of_low_frequencies_worked_by_hand():
    """An image that darkens from left to right has its energy in the first row of cosines."""
    ramp = np.tile(np.linspace(255, 0, 64).astype(np.uint8), (64, 1))

    hashed = perceptual_hash(Image.fromarray(ramp))[: BITS // 8]
    bits = np.unpackbits(np.frombuffer(hashed, dtype=np.uint8))

    assert len(bits) == BITS
    assert bits[:2].tolist() == [1, 1]  # brightness, and brighter on the left
