"""Images: every kind of file becomes RGB, broken ones are refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vlm_r1.data.images import image_digest, open_image, read_image_size
from vlm_r1.errors import DataError

ORIENTATION = 0x0112


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (4, 2), "white")
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned a quarter clockwise
    image.save(tmp_path / "a.png", exif=exif)

    opened = open_image(tmp_path / "a.png")

    assert opened.size == (2, 4)
    assert opened.getpixel((1, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_opaque_modes_become_rgb(tmp_path, mode):
    suffix = "tiff" if mode in ("CMYK", "YCbCr") else "png"
    Image.new("RGB", (3, 2), "white").convert(mode).save(tmp_path / f"a.{suffix}")

    opened = open_image(tmp_path / f"a.{suffix}")

    assert opened.mode == "RGB"
    assert np.asarray(opened).tolist() == [[[255, 255, 255]] * 3] * 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_becomes_white(tmp_path, mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    suffix = "tiff" if mode == "PA" else "png"
    image.convert("RGBA" if mode == "PA" else mode).save(tmp_path / f"a.{suffix}")

    opened = open_image(tmp_path / f"a.{suffix}")

    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_of_sixteen_bits_of_gray_the_upper_eight_are_kept(tmp_path, suffix):
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(np.array([[0, 255, 256, 40_000, 65_535]], dtype=np.uint16)).save(path)

    assert np.asarray(open_image(path))[0, :, 0].tolist() == [0, 0, 1, 40_000 // 256, 255]


@pytest.mark.parametrize(("mode", "dtype"), [("I", np.int32), ("F", np.float32)])
def test_thirty_two_bits_have_no_known_range_and_are_refused(tmp_path, mode, dtype):
    Image.fromarray(np.full((2, 2), 7, dtype=dtype)).save(tmp_path / "depth.tiff")

    with pytest.raises(DataError, match=rf"depth\.tiff: 32 bits a channel \(mode {mode}\)"):
        open_image(tmp_path / "depth.tiff")


def test_a_cmyk_photo_gets_the_colors_that_pillow_converts_it_to(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)

    red, green, blue = open_image(tmp_path / "print.jpg").getpixel((4, 4))

    assert (red > 250, green < 5, blue < 5) == (True, True, True)


def test_palette_transparency_becomes_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)

    opened = open_image(tmp_path / "a.png")

    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (40, 50, 60)]


def test_the_first_of_several_frames_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])

    assert open_image(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)


def test_the_format_is_recognized_by_the_content_not_the_suffix(tmp_path):
    Image.new("RGB", (3, 2), "red").save(tmp_path / "a.jpg", format="PNG")

    assert open_image(tmp_path / "a.jpg").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (27, 27), (200, 1)])
def test_a_tiny_image_is_opened(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "a.png")

    assert open_image(tmp_path / "a.png").size == size


def test_sides_that_the_processor_would_refuse_are_refused(tmp_path):
    Image.new("RGB", (201, 1)).save(tmp_path / "line.png")

    with pytest.raises(DataError, match=r"line\.png: 201 x 1 px, longer than 200 to 1"):
        open_image(tmp_path / "line.png")


@pytest.mark.parametrize("side", [13_500, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, side):
    """A PNG of 70 bytes whose header claims `side` x `side` pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)

    with pytest.raises(DataError, match=r"bomb\.png: .*pixels"):
        open_image(tmp_path / "bomb.png")


def test_an_empty_file_is_named_so(tmp_path):
    (tmp_path / "a.jpg").touch()

    for reads in (open_image, read_image_size):
        with pytest.raises(DataError, match=r"a\.jpg: empty\nneed a whole image"):
            reads(tmp_path / "a.jpg")


def test_a_folder_in_place_of_an_image_is_named_so(tmp_path):
    (tmp_path / "a.jpg").mkdir()

    for reads in (open_image, read_image_size, image_digest):
        with pytest.raises(DataError, match=r"a\.jpg: a folder"):
            reads(tmp_path / "a.jpg")


def test_missing_image_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        open_image(tmp_path / "gone.png")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_image_is_refused(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(DataError, match=rf"cut\.{suffix}: .+\nneed a whole image"):
        open_image(path)


def test_file_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("hello")

    with pytest.raises(DataError, match=r"a\.png: cannot identify image file"):
        open_image(tmp_path / "a.png")
