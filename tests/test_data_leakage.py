"""Leakage: what counts as one image; the synthetic datasets contain no false pairs."""

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from vlm_r1.config import DrawnSplit, load_params, standalone
from vlm_r1.data.synthetic.dataset import sample_split
from vlm_r1.data.synthetic.drawing import draw_scene
from vlm_r1.data.validation.image_inspection import ImageFacts
from vlm_r1.data.validation.leakage import ImageSet, shared_images
from vlm_r1.data.validation.perceptual_hash import near_pairs, perceptual_hash

BITS = standalone.VALIDATION.near_duplicate_bits


def image_set(name, *images, folder="root", facts=None):
    return ImageSet(name, Path(folder), list(images), facts or {})


def shared(ours, theirs, bits=BITS):
    return [(leak.image, leak.against_image, leak.by) for leak in shared_images(ours, theirs, bits)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("train2014/COCO_train2014_000000581857.jpg", "COCO_train2014_000000581857.jpg"),
        ("COCO_train2014_000000581857.jpg", "coco/train2017/000000581857.jpg"),
        ("COCO_val2014_000000581857.jpg", "COCO_train2014_000000581857_1719310.jpg"),
    ],
)
def test_coco_images_are_one_by_their_id(ours, theirs):
    assert shared(image_set("a", ours, folder="x"), image_set("b", theirs, folder="y")) == [
        (ours, theirs, "id")
    ]


def test_plain_numbers_are_no_coco_ids_but_a_path_is_a_path():
    ours, theirs = (
        image_set("a", "000000000001.jpg", folder="x"),
        image_set("b", "000000000001.jpg"),
    )

    assert shared(ours, theirs) == []
    assert shared(ours, image_set("b", "./y/../000000000001.jpg", folder="x")) == [
        ("000000000001.jpg", "./y/../000000000001.jpg", "id")
    ]


def test_a_coco_folder_as_the_image_folder_counts():
    ours = image_set("a", "000000000001.jpg", folder="data/train2017")

    assert len(shared(ours, image_set("b", "COCO_train2014_000000000001.jpg"))) == 1


def facts(sha256, phash):
    return ImageFacts(sha256=sha256, phash=phash)


def test_a_pair_is_named_once_with_its_strongest_sign_and_in_order():
    phash = bytes(224)
    ours = {Path("x/2.png"): facts("s", phash), Path("x/1.png"): facts("t", phash)}
    theirs = {Path("y/3.png"): facts("s", phash)}
    found = shared(
        image_set("a", "2.png", "1.png", folder="x", facts=ours),
        image_set("b", "3.png", folder="y", facts=theirs),
    )

    assert found == [
        ("2.png", "3.png", "bytes"),
        ("1.png", "3.png", "phash (0 of 256 bits differ)"),
    ]


def test_an_image_that_cannot_be_opened_is_compared_by_name_only():
    ours = image_set("a", "1.png", folder="x", facts={Path("x/1.png"): ImageFacts(fault="broken")})
    theirs = image_set(
        "b", "2.png", folder="x", facts={Path("x/2.png"): ImageFacts(fault="broken")}
    )

    assert shared(ours, theirs) == []


def photo(seed):
    """Something with the spectrum of a photograph: blurred noise at several scales."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((320, 240)),
            dtype=float,
        )
        for n in (3, 7, 20, 60)
    ]
    mixed = sum(weight * layer for weight, layer in zip((8, 4, 2, 1), layers, strict=True)) / 15
    return Image.fromarray(mixed.astype(np.uint8))


def as_jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


NEAR = {
    "jpeg": lambda p: as_jpeg(p, 40),
    "half": lambda p: p.resize((p.width // 2, p.height // 2)),
    "third_as_jpeg": lambda p: as_jpeg(p.resize((p.width // 3, p.height // 3)), 70),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.1),
    "more_contrast": lambda p: ImageEnhance.Contrast(p).enhance(1.2),
    "softer": lambda p: p.filter(ImageFilter.GaussianBlur(1)),
}


@pytest.mark.parametrize("change", NEAR.values(), ids=NEAR)
def test_a_changed_copy_is_near_its_image_and_no_other(change):
    images = [photo(seed) for seed in range(12)]
    hashes = [perceptual_hash(image) for image in images]
    copies = [perceptual_hash(change(image)) for image in images]

    pairs = {(i, j) for i, j, _ in near_pairs(hashes, copies, BITS)}

    assert pairs == {(i, i) for i in range(12)}


def test_synthetic_datasets_contain_no_false_pairs():
    """A few shapes on plain ground are alike; perceptual hashes still tell the splits apart."""
    params = load_params(Path(__file__).parents[1] / "params.yaml")
    images = {
        name: [
            perceptual_hash(draw_scene(described.scene))
            for described in sample_split(
                name,
                DrawnSplit(
                    world=drawn.world,
                    images=300,
                    phrases_per_image=1,
                    detection=False,
                    sizes=None,
                ),
                params.experiment.seed,
            )
        ]
        for name, drawn in params.draw.items()
    }

    for one, other in combinations(images, 2):
        assert list(near_pairs(images[one], images[other], BITS)) == [], (one, other)


def test_images_of_one_layout_in_other_colors_are_no_copies():
    """Their hash bits, which ignore color, are equal."""
    images = [Image.new("RGB", (84, 84), "white") for _ in range(2)]
    for image, color in zip(images, ("#2040c0", "#a02020"), strict=True):
        ImageDraw.Draw(image).rectangle((10, 20, 50, 60), fill=color)
    ours, theirs = (perceptual_hash(image) for image in images)

    assert ours[:32] == theirs[:32]
    assert list(near_pairs([ours], [theirs], BITS)) == []
    assert list(near_pairs([ours], [ours], 0)) == [(0, 0, 0)]


def test_an_image_of_one_tone_has_no_perceptual_hash():
    assert perceptual_hash(Image.new("RGB", (84, 84), (100, 101, 102))) is None


def test_near_pairs_are_those_of_a_plain_comparison_across_blocks_and_in_order():
    rng = np.random.default_rng(0)
    theirs = rng.integers(0, 256, (4200, 224), dtype=np.uint8)
    ours = theirs[rng.integers(0, 4200, 150)]  # more than two blocks of rows and one of columns
    ours[:, 0] ^= 0b111  # in the first 64 bits
    ours[::2, 31] ^= 0b11  # in the last
    ours[-1] = theirs[-1]
    ours[-2, 8:16] ^= 0xFF  # equal in the first 64 bits only
    expected = [
        (i, int(j), int(distance[j]))
        for i, one in enumerate(ours)
        for distance in [np.bitwise_count(one[:32] ^ theirs[:, :32]).sum(axis=1, dtype=int)]
        for j in np.flatnonzero(distance <= 5)
    ]

    found = list(near_pairs([o.tobytes() for o in ours], [t.tobytes() for t in theirs], 5))

    assert found == expected
    assert len(found) == 149
    assert found[-1] == (149, 4199, 0)
    assert list(near_pairs([ours[0].tobytes()], [], 5)) == []
