"""Leakage: what counts as one image, and that drawn worlds hold no false twins."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from vlm_r1.config import DrawnSplit, load_params, standalone
from vlm_r1.data.synthetic.dataset import sample_split
from vlm_r1.data.synthetic.drawing import draw_scene
from vlm_r1.data.validation.image_inspection import Finding
from vlm_r1.data.validation.leakage import ImageSet, shared_images
from vlm_r1.data.validation.perceptual_hash import fingerprint, near_pairs

BITS = standalone.VALIDATION.near_duplicate_bits


def album(name, *images, folder="root", findings=None):
    return ImageSet(name, Path(folder), list(images), findings or {})


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
    assert shared(album("a", ours, folder="x"), album("b", theirs, folder="y")) == [
        (ours, theirs, "id")
    ]


def test_plain_numbers_are_no_coco_ids_but_a_path_is_a_path():
    ours, theirs = album("a", "000000000001.jpg", folder="x"), album("b", "000000000001.jpg")

    assert shared(ours, theirs) == []
    assert shared(ours, album("b", "./y/../000000000001.jpg", folder="x")) == [
        ("000000000001.jpg", "./y/../000000000001.jpg", "id")
    ]


def test_folder_of_coco_named_as_root_counts():
    ours = album("a", "000000000001.jpg", folder="data/train2017")

    assert len(shared(ours, album("b", "COCO_train2014_000000000001.jpg"))) == 1


def finding(sha256, look):
    return Finding(sha256=sha256, look=look)


def test_pair_is_named_once_with_the_plainest_sign_and_in_order():
    look = bytes(224)
    ours = {Path("x/2.png"): finding("s", look), Path("x/1.png"): finding("t", look)}
    theirs = {Path("y/3.png"): finding("s", look)}
    found = shared(
        album("a", "2.png", "1.png", folder="x", findings=ours),
        album("b", "3.png", folder="y", findings=theirs),
    )

    assert found == [
        ("2.png", "3.png", "bytes"),
        ("1.png", "3.png", "look (0 of 256 bits differ)"),
    ]


def test_image_that_did_not_open_is_compared_by_name_only():
    ours = album("a", "1.png", folder="x", findings={Path("x/1.png"): Finding(fault="broken")})
    theirs = album("b", "2.png", folder="x", findings={Path("x/2.png"): Finding(fault="broken")})

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
def test_changed_copy_looks_like_its_image_and_like_no_other(change):
    images = [photo(seed) for seed in range(12)]
    hashes = [fingerprint(image) for image in images]
    copies = [fingerprint(change(image)) for image in images]

    pairs = {(i, j) for i, j, _ in near_pairs(hashes, copies, BITS)}

    assert pairs == {(i, i) for i in range(12)}


def test_drawn_worlds_hold_no_false_twins():
    """A few shapes on plain ground are alike; fingerprints still tell the splits apart."""
    params = load_params(Path(__file__).parents[1] / "params.yaml")
    images = {
        name: [
            fingerprint(draw_scene(page.scene))
            for page in sample_split(
                name,
                DrawnSplit(world=drawn.world, images=300, phrases_per_image=1),
                params.experiment.seed,
            )
        ]
        for name, drawn in params.draw.items()
    }
    trained = images.pop("studio_train")

    for hashes in images.values():
        assert list(near_pairs(trained, hashes, BITS)) == []


def test_images_of_one_layout_in_other_colors_are_no_copies():
    """What a hash without colors takes for one image."""
    images = [Image.new("RGB", (84, 84), "white") for _ in range(2)]
    for image, color in zip(images, ("#2040c0", "#a02020"), strict=True):
        ImageDraw.Draw(image).rectangle((10, 20, 50, 60), fill=color)
    ours, theirs = (fingerprint(image) for image in images)

    assert ours[:32] == theirs[:32]
    assert list(near_pairs([ours], [theirs], BITS)) == []
    assert list(near_pairs([ours], [ours], 0)) == [(0, 0, 0)]


def test_image_of_one_tone_has_no_look():
    assert fingerprint(Image.new("RGB", (84, 84), (100, 101, 102))) is None
