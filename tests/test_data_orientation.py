"""EXIF orientation: boxes are converted to the upright image."""

import numpy as np
import pytest
from PIL import Image

from tests.dataset_files import records_table
from tests.image_files import save_turned
from vlm_r1.data.images import open_image, read_image_size
from vlm_r1.data.orientation import upright_boxes, upright_records
from vlm_r1.data.records import BOX

STORED = (40, 20)  # width, height
MARK = (1, 2, 5, 8)  # xyxy, stored pixels


def marked() -> np.ndarray:
    pixels = np.zeros((STORED[1], STORED[0], 3), dtype=np.uint8)
    x1, y1, x2, y2 = MARK
    pixels[y1:y2, x1:x2] = 255
    return pixels


def record(image: str, size: tuple[int, int], box: tuple) -> dict:
    corners = dict(zip(BOX, box, strict=True))
    words = {"record_id": image, "image": image, "expression": "the mark", "split": "train"}
    sides = {"width": size[0], "height": size[1]}
    return words | sides | corners | {"dataset": "d", "source_id": ""}


def test_a_quarter_turn_clockwise_computed_by_hand():
    # 6: the stored top edge becomes the right edge, so upright x counts from the stored bottom
    turned = upright_boxes(np.array([MARK]), *STORED, 6)
    assert turned.tolist() == [[20 - 8, 1, 20 - 2, 5]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_box_follows_the_pixels(tmp_path, orientation):
    save_turned(tmp_path / "a.png", marked(), orientation)

    upright = np.asarray(open_image(tmp_path / "a.png"))
    rows, columns = np.nonzero(upright[..., 0])
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]

    assert upright_boxes(np.array([MARK]), *STORED, orientation).tolist() == [seen]
    assert read_image_size(tmp_path / "a.png") == upright.shape[:2]


def test_an_orientation_that_exif_does_not_know_turns_nothing(tmp_path):
    save_turned(tmp_path / "a.png", marked(), 9)

    assert read_image_size(tmp_path / "a.png") == (20, 40)
    assert open_image(tmp_path / "a.png").size == STORED


def test_records_that_ignore_exif_are_turned_with_their_images(tmp_path):
    save_turned(tmp_path / "plain.png", marked(), 1)
    save_turned(tmp_path / "quarter.png", marked(), 6)
    save_turned(tmp_path / "half.png", marked(), 3)
    names = ("quarter.png", "plain.png", "half.png", "quarter.png")
    records = records_table([record(name, STORED, MARK) for name in names])

    upright = upright_records(records, tmp_path)

    assert upright[BOX].to_numpy().tolist() == [
        [12, 1, 18, 5],
        [1, 2, 5, 8],
        [35, 12, 39, 18],
        [12, 1, 18, 5],
    ]
    assert upright[["width", "height"]].to_numpy().tolist() == [
        [20, 40],
        [40, 20],
        [40, 20],
        [20, 40],
    ]
    assert upright.dtypes.equals(records.dtypes)
    assert records[BOX].to_numpy().tolist() == [list(MARK)] * 4, "the input is not changed"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_real_jpeg_is_turned_too(tmp_path, mode):
    image = Image.new(mode, STORED)
    save_turned(tmp_path / "a.jpg", image, 8)

    assert open_image(tmp_path / "a.jpg").size == (20, 40)
