"""Pictures: every kind of file becomes RGB, broken ones are refused."""

import numpy as np
import pytest
from PIL import Image

from vlm_r1.data.images import open_picture
from vlm_r1.errors import DataError

ORIENTATION = 0x0112


def test_exif_orientation_is_applied(tmp_path):
    picture = Image.new("RGB", (4, 2), "white")
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned a quarter clockwise
    picture.save(tmp_path / "a.png", exif=exif)

    opened = open_picture(tmp_path / "a.png")

    assert opened.size == (2, 4)
    assert opened.getpixel((1, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_opaque_modes_become_rgb(tmp_path, mode):
    suffix = "tiff" if mode in ("CMYK", "YCbCr") else "png"
    Image.new("RGB", (3, 2), "white").convert(mode).save(tmp_path / f"a.{suffix}")

    opened = open_picture(tmp_path / f"a.{suffix}")

    assert opened.mode == "RGB"
    assert np.asarray(opened).tolist() == [[[255, 255, 255]] * 3] * 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 255))
    suffix = "tiff" if mode == "PA" else "png"
    picture.convert("RGBA" if mode == "PA" else mode).save(tmp_path / f"a.{suffix}")

    opened = open_picture(tmp_path / f"a.{suffix}")

    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]


def test_sixteen_bits_are_refused_rather_than_clipped(tmp_path):
    Image.fromarray(np.full((2, 2), 40_000, dtype=np.uint16)).save(tmp_path / "depth.png")

    with pytest.raises(DataError, match=r"depth\.png: more than 8 bits a channel \(mode I"):
        open_picture(tmp_path / "depth.png")


def test_missing_picture_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        open_picture(tmp_path / "gone.png")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_picture_is_refused(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(DataError, match=rf"cut\.{suffix}: .+\nneed a whole picture"):
        open_picture(path)


def test_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("hello")

    with pytest.raises(DataError, match=r"a\.png: cannot identify image file"):
        open_picture(tmp_path / "a.png")
