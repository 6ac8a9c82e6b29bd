"""Every kind of file that a folder of images may hold becomes (H, W, 3) uint8 RGB."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from minima_core.errors import DataError
from minima_core.io.images import (
    decode,
    decode_raw,
    encode_jpeg,
    encode_palette_png,
    encode_png,
    encode_raw,
    find_images,
    image_size,
    read_image,
    write_image,
)

RAMP = np.linspace(0, 255, 40 * 60 * 3).reshape(40, 60, 3).astype(np.uint8)


def test_gray_is_repeated(tmp_path):
    Image.fromarray(RAMP[..., 0]).save(tmp_path / "g.png")
    assert np.array_equal(read_image(tmp_path / "g.png"), np.repeat(RAMP[..., :1], 3, 2))


def test_alpha_is_laid_over_white(tmp_path):
    rgba = np.dstack([np.full((4, 4, 3), 100, np.uint8), np.array([[0, 255, 0, 255]] * 4, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [255, 100, 255, 100]


def test_gray_with_alpha(tmp_path):
    la = np.dstack([np.full((4, 4), 60, np.uint8), np.array([[0, 255] * 2] * 4, np.uint8)])
    Image.fromarray(la, "LA").save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png")[0, :, 2].tolist() == [255, 60, 255, 60]


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.fromarray(RAMP).quantize(16)
    image.save(tmp_path / "p.png")
    assert np.abs(read_image(tmp_path / "p.png").astype(int) - RAMP).mean() < 20
    image.save(tmp_path / "t.png", transparency=int(np.asarray(image)[0, 0]))
    assert read_image(tmp_path / "t.png")[0, 0].tolist() == [255, 255, 255]


def test_cmyk_jpeg_keeps_its_colours(tmp_path):
    colour = np.full((32, 32, 3), (200, 60, 30), np.uint8)
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "c.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "c.jpg").astype(int) - colour).max() < 12


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_gray_is_scaled_by_its_range(tmp_path, suffix):
    values = np.array([[0, 257, 257 * 128, 65535]] * 4, np.uint16)
    cv2.imwrite(str(tmp_path / f"d{suffix}"), values)
    assert read_image(tmp_path / f"d{suffix}")[0, :, 1].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour(tmp_path, suffix):
    rgb = np.array([[[0, 257 * 100, 65535]] * 4] * 4, np.uint16)
    cv2.imwrite(str(tmp_path / f"d{suffix}"), rgb[..., ::-1])
    assert read_image(tmp_path / f"d{suffix}")[0, 0].tolist() == [0, 100, 255]


def test_float_tiff(tmp_path):
    Image.fromarray(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)).save(tmp_path / "f.tif")
    assert read_image(tmp_path / "f.tif")[[0, 3], [0, 3], 0].tolist() == [0, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:8, :8] = 255  # its top left corner is white
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo[orientation](upright))
    Image.fromarray(stored).save(tmp_path / "o.jpg", exif=exif, quality=100)
    image = read_image(tmp_path / "o.jpg")
    assert image.shape == (32, 48, 3)
    assert image[:6, :6].min() > 200 and image[12:].max() < 60


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encode_jpeg(RAMP)[:-400], "cannot read .*x.jpg"),
        (encode_png(RAMP)[:-60], "cannot read .*x.jpg"),
        (b"not an image", "x.jpg is not an image"),
        (b"", "x.jpg is not an image"),
    ],
)
def test_damaged_file_is_named(tmp_path, content, message):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_image(tmp_path / "x.jpg")


JPEGS = [
    {"quality": 90},
    {"quality": 30, "optimize": True},
    {"subsampling": 0},
    {"subsampling": 1},
    {"progressive": True},
    {"keep_rgb": True},
    {"restart_marker_rows": 1},
]


@pytest.mark.parametrize("how", JPEGS, ids=lambda how: "_".join(how))
def test_a_jpeg_has_the_pixels_that_pillow_reads(tmp_path, monkeypatch, how):
    noise = np.random.default_rng(0).integers(0, 256, (123, 157, 3), np.uint8)
    path = tmp_path / "x.jpg"
    Image.fromarray(cv2.GaussianBlur(noise, (0, 0), 2)).save(path, **how)
    with Image.open(path) as image:
        expected = np.array(image)
    slow = []
    monkeypatch.setattr("minima_core.io.images._to_rgb", lambda image: slow.append(image))
    assert np.array_equal(read_image(path), expected)
    assert np.array_equal(read_image(path.read_bytes()), expected)
    assert not slow


def test_a_jpeg_with_something_behind_its_end_is_read(tmp_path):
    (tmp_path / "x.jpg").write_bytes(encode_jpeg(RAMP) + b"note of a camera")
    assert np.array_equal(read_image(tmp_path / "x.jpg"), read_image(encode_jpeg(RAMP)))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no file .*gone\.png"):
        read_image(tmp_path / "gone.png")


def test_png_bytes_are_lossless_and_jpeg_is_near(tmp_path):
    assert np.array_equal(decode(encode_png(RAMP)), RAMP)
    assert np.abs(decode(encode_jpeg(RAMP)).astype(int) - RAMP).mean() < 3
    write_image(tmp_path / "w.png", RAMP)
    assert np.array_equal(read_image(tmp_path / "w.png"), RAMP)


def test_find_images_goes_down_and_ignores_case_hidden_files_and_hidden_folders(tmp_path):
    for name in ("b.JPG", "a/c.TiFf", "a/notes.txt", ".hidden.png", ".git/d.png", "a/.thumbnails/large/e.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert [p.name for p in find_images(tmp_path)] == ["c.TiFf", "b.JPG"]


def test_find_images_leaves_out_raw_values_beside_their_picture_and_nothing_else(tmp_path):
    for name in ("a.jpg", "a.raw.png", "b.c.png", "b.c.raw.png", "d.raw.png", "raw.png", "a.raw.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert [p.name for p in find_images(tmp_path)] == ["a.jpg", "a.raw.jpg", "b.c.png", "d.raw.png", "raw.png"]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_size_is_that_of_the_image_that_is_read(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"o{suffix}"
    Image.fromarray(RAMP).save(path, exif=exif)
    h, w = read_image(path).shape[:2]
    assert (w, h) == ((40, 60) if orientation > 4 else (60, 40))
    assert image_size(path) == image_size(path.read_bytes()) == (w, h)


def test_bytes_are_read_like_the_file_they_come_from(tmp_path):
    rgba = np.dstack([RAMP, RAMP[..., 0]])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.array_equal(read_image((tmp_path / "a.png").read_bytes()), read_image(tmp_path / "a.png"))
    with pytest.raises(DataError, match="the upload is not an image"):
        read_image(b"text", "the upload")


@pytest.mark.parametrize("read", [read_image, image_size])
def test_what_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch, read):
    def denied(*_args, **_more):
        raise PermissionError(13, "Permission denied")

    with pytest.raises(DataError, match="is a folder; give the path of an image"):
        read(tmp_path)
    write_image(tmp_path / "a.png", RAMP)
    if os.geteuid():
        (tmp_path / "a.png").chmod(0)
    else:  # root may read everything
        monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(DataError, match=r"a\.png: Permission denied; make it readable"):
        read(Path(tmp_path / "a.png"))


@pytest.mark.parametrize("read", [read_image, image_size])
def test_a_picture_too_large_to_open_is_not_called_damaged(tmp_path, read):
    Image.new("1", (13378, 13377)).save(tmp_path / "scan.png")  # the fewest pixels too many, nearly
    with pytest.raises(DataError, match=r"scan\.png has more than 178956970 pixels; tile it first$"):
        read(tmp_path / "scan.png")


def test_a_name_that_is_not_utf_8_is_one_line(tmp_path):
    path = Path(os.fsdecode(bytes(tmp_path) + b"/bad\xff.png"))
    path.write_bytes(encode_png(np.zeros((4, 4, 3), np.uint8)))
    with pytest.raises(DataError, match=r"bad\\udcff\.png' is not UTF-8; rename the file") as caught:
        read_image(path)
    str(caught.value).encode()


def test_a_palette_png_holds_the_same_picture_in_fewer_bytes():
    palette = ((255, 255, 255), (0, 0, 255), (255, 0, 0))
    image = np.array(palette, np.uint8)[np.random.default_rng(0).integers(0, 3, (37, 51))]
    data = encode_palette_png(image, palette)
    assert (decode(data) == image).all() and (read_image(data) == image).all()
    assert len(data) < len(encode_png(image))
    assert data == encode_palette_png(image.copy(), palette)


@pytest.mark.parametrize("encode", [encode_png, encode_jpeg])
def test_one_channel_is_read_like_three_equal_ones(encode):
    gray = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY) // 32 * 32
    one, three = encode(gray), encode(np.repeat(gray[..., None], 3, axis=2))
    assert (decode(one) == decode(three)).all() and (read_image(one) == read_image(three)).all()
    assert len(one) < len(three)


@pytest.mark.parametrize("values", [np.linspace(-3, 8, 600).reshape(20, 30), np.full((4, 5), 2.5)])
def test_raw_values_come_back_to_a_65535th_of_their_range(values):
    data, span = encode_raw(values.astype(np.float32))
    assert np.abs(decode_raw(data, span) - values).max() <= (span[1] - span[0]) / 65535 + 1e-6
