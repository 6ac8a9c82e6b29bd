"""Every kind of file that a folder of images may hold becomes (H, W, 3) uint8 RGB."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
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
    read_ids,
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


SCENE = np.random.default_rng(0).permutation(np.linspace(0, 1, 2400)).reshape(40, 60)


def _contrast(path):
    """Read a picture both ways and return how much of 0 to 255 it spreads over."""
    image = read_image(path)
    assert image_size(path) == image_size(path.read_bytes()) == (image.shape[1], image.shape[0])
    return int(image.max()) - int(image.min())


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ((280 + 30 * SCENE).astype(np.float32), "kelvin.tif"),
        ((60 * SCENE - 20).astype(np.float32), "celsius.tif"),
        ((0.02 + 0.08 * SCENE).astype(np.float32), "reflectance.tif"),
        ((7500 + 1020 * SCENE).astype(np.uint16), "counts.png"),
        ((7500 + 1020 * SCENE).astype(np.uint16), "counts.tif"),
        ((4095 * SCENE - 1024).astype(np.int32), "hounsfield.tif"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_in_a_small_part_of_their_range_are_stretched(tmp_path, values, name):
    Image.fromarray(values).save(tmp_path / name)
    assert _contrast(tmp_path / name) == 255
    image = read_image(tmp_path / name)[..., 0].astype(int)
    assert np.abs(image - 255 * SCENE).max() <= 3  # half a hundredth of the values is cut off at either end


@pytest.mark.parametrize("kind", [np.int32, np.float32, np.uint16])
@pytest.mark.parametrize("low", [0, 150])
def test_values_up_to_255_are_taken_as_they_are(tmp_path, kind, low):
    values = np.round(low + 100 * SCENE).astype(kind)
    Image.fromarray(values).save(tmp_path / "v.tif")
    assert (read_image(tmp_path / "v.tif")[..., 1] == values).all()


@pytest.mark.parametrize("most", [0.25, 0.5, 1])
def test_16_bit_that_use_a_quarter_of_their_range_keep_their_brightness(tmp_path, most):
    values = np.round(65535 * most * SCENE + 1).clip(0, 65535).astype(np.uint16)
    values[0, :2] = 0, np.ceil(65535 * most)
    cv2.imwrite(str(tmp_path / "g.png"), values)
    assert (read_image(tmp_path / "g.png")[..., 0] == (values.astype(int) + 128) // 257).all()
    cv2.imwrite(str(tmp_path / "c.png"), np.repeat(values[..., None], 3, 2))
    assert (read_image(tmp_path / "c.png")[..., 0] == values >> 8).all()


def test_what_is_not_finite_is_black_and_does_not_count(tmp_path):
    values = (280 + 30 * SCENE).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(tmp_path / "n.tif")
    image = read_image(tmp_path / "n.tif")
    assert (image[0, :3] == 0).all() and abs(int(image[1:].mean()) - 127) < 3
    Image.fromarray(np.full((4, 5), np.nan, np.float32)).save(tmp_path / "n.tif")
    assert (read_image(tmp_path / "n.tif") == 0).all()


BANDS = np.stack([SCENE, SCENE[::-1], SCENE[:, ::-1], SCENE[::-1, ::-1]], axis=2)


def _write_bands(path, values, extra=None, nodata=None):
    """Write a TIFF of bands side by side, as Pillow cannot; ``extra`` says what a fourth one is."""
    height, width, bands = values.shape
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    photometric = 2 if bands > 1 else 1  # RGB or gray
    for tag, value in ((256, width), (257, height), (259, 1), (262, photometric), (277, bands), (278, height)):
        tags[tag] = value
    tags[258] = (values.itemsize * 8,) * bands
    tags[339] = ({"u": 1, "i": 2, "f": 3}[values.dtype.kind],) * bands
    tags[279] = values.nbytes
    tags[273] = 0  # counted from the end of the tags
    if extra is not None:
        tags[338] = extra
    if nodata is not None:
        tags.tagtype[42113] = TiffImagePlugin.TiffTags.ASCII
        tags[42113] = nodata
    path.write_bytes(b"II*\0\x08\0\0\0" + tags.tobytes(8) + values.tobytes())


@pytest.mark.parametrize(
    ("kind", "nodata"),
    [
        (np.float32, "-9999"),
        (np.float32, "0"),
        (np.float32, "-3.40282346600000016e+38"),  # as GDAL prints the lowest number of float32
        (np.float32, "-1.7976931348623157e+308 "),
        (np.int32, "-9999"),
        (np.int16, "-32768"),
        (np.uint16, "0"),
        (np.uint16, "65535"),
    ],
)
@pytest.mark.parametrize("bands", [1, 3])
def test_what_a_tiff_declares_as_no_data_is_black_and_does_not_count(tmp_path, kind, nodata, bands):
    values = np.repeat((3000 + 500 * SCENE)[..., None], bands, 2).astype(kind)
    with np.errstate(over="ignore"):
        values[:, :20] = np.array(float(nodata)).astype(kind)
    _write_bands(tmp_path / "n.tif", values, nodata=nodata)
    image = read_image(tmp_path / "n.tif")
    assert (image[:, :20] == 0).all()
    assert np.abs(image[:, 20:, 0] - 255 * SCENE[:, 20:]).max() <= 5


@pytest.mark.parametrize("nodata", ["", "4294967295"])
def test_integers_of_32_bits_without_a_sign_keep_their_order(tmp_path, nodata):
    values = np.round(SCENE * 4_294_967_294).astype(np.uint32)
    if nodata:
        values[:, :20] = int(nodata)
    _write_bands(tmp_path / "u.tif", values[..., None], nodata=nodata)
    image = read_image(tmp_path / "u.tif")[..., 0]
    assert (image[:, :20] == 0).all() if nodata else image[:, :20].max() > 250
    assert np.abs(image[:, 20:] - 255 * SCENE[:, 20:]).max() <= 5


@pytest.mark.parametrize("nodata", ["", "none", "-9999", "nan"])
def test_a_declaration_of_no_data_that_no_pixel_has_changes_nothing(tmp_path, nodata):
    values = (30000 * BANDS[..., :3]).astype(np.uint16)
    _write_bands(tmp_path / "a.tif", values)
    _write_bands(tmp_path / "b.tif", values, nodata=nodata)
    assert np.array_equal(read_image(tmp_path / "a.tif"), read_image(tmp_path / "b.tif"))


@pytest.mark.parametrize("value", [0, 7, 300, 70000, -5])
def test_one_value_stays_one_value(tmp_path, value):
    Image.fromarray(np.full((40, 60), value, np.float32)).save(tmp_path / "one.tif")
    assert _contrast(tmp_path / "one.tif") == 0


def test_few_other_values_are_seen(tmp_path):
    values = np.full((40, 60), 1000, np.uint16)
    values[3, 4] = 1200
    Image.fromarray(values).save(tmp_path / "few.png")
    assert _contrast(tmp_path / "few.png") == 255


@pytest.mark.parametrize("extra", [None, 0])
@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32, np.int32])
def test_a_fourth_band_is_not_transparency_unless_the_file_says_so(tmp_path, kind, extra):
    _write_bands(tmp_path / "b.tif", (4000 * BANDS).astype(kind), extra)
    assert _contrast(tmp_path / "b.tif") == 255
    assert np.abs(read_image(tmp_path / "b.tif") - 255 * BANDS[..., :3]).max() <= 3


def test_a_fourth_band_of_bytes_is_not_transparency_either(tmp_path):
    values = np.round(255 * BANDS).astype(np.uint8)
    _write_bands(tmp_path / "b.tif", values)
    assert (read_image(tmp_path / "b.tif") == values[..., :3]).all()


def test_a_fourth_band_that_is_called_alpha_lies_over_white(tmp_path):
    values = (4000 * BANDS).astype(np.uint16)
    values[..., 3] = 65535
    values[0, 0, 3] = 0
    _write_bands(tmp_path / "b.tif", values, 2)
    image = read_image(tmp_path / "b.tif")
    assert image[0, 0].tolist() == [255, 255, 255]
    assert np.abs(image[1:] - 255 * BANDS[1:, :, :3]).max() <= 3


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.int32, np.uint16])
def test_three_bands_of_any_numbers_are_colours(tmp_path, kind):
    _write_bands(tmp_path / "c.tif", (4000 * BANDS[..., :3]).astype(kind))
    assert _contrast(tmp_path / "c.tif") == 255
    assert np.abs(read_image(tmp_path / "c.tif") - 255 * BANDS[..., :3]).max() <= 3


@pytest.mark.parametrize("read", [read_image, image_size])
@pytest.mark.parametrize("bands", [2, 5])
def test_bands_that_are_not_read_are_told_with_what_to_do(tmp_path, read, bands):
    _write_bands(tmp_path / "b.tif", np.zeros((4, 6, bands), np.float32))
    with pytest.raises(
        DataError, match=rf"b\.tif .*not read \({bands} x 32 bits\); convert it: gdal_translate [^\n]*$"
    ):
        read(tmp_path / "b.tif")


@pytest.mark.parametrize("suffix", [".jp2", ".j2k"])
def test_jpeg_2000_is_found_and_read(tmp_path, suffix):
    Image.fromarray(RAMP).save(tmp_path / f"x{suffix}")
    assert find_images(tmp_path) == [tmp_path / f"x{suffix}"]
    assert _contrast(tmp_path / f"x{suffix}") > 250


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
        (b"II*", "x.jpg is not an image"),
        (b"II*\0\x08\0\0\0" + bytes(20), "x.jpg is a damaged TIFF"),
    ],
)
def test_damaged_file_is_named(tmp_path, content, message):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("read", [read_image, read_ids])
def test_a_bit_that_flipped_in_a_png_is_not_read_as_another_picture(tmp_path, read):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)  # Pillow takes most flips in such
    data = encode_png(noise)
    (tmp_path / "x.png").write_bytes(data)
    read(tmp_path / "x.png")
    for place in range(data.index(b"IDAT") + 8, len(data) - 16, 97):
        (tmp_path / "x.png").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DataError, match=r"cannot read .*x\.png"):
            read(tmp_path / "x.png")


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
    monkeypatch.setattr("minima_core.io.images._to_rgb", lambda image, _file: slow.append(image))
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


def test_find_images_leaves_out_the_depth_of_posed_frames_and_nothing_else(tmp_path):
    for name in ("f-0.color.png", "f-0.depth.png", "f-1.color.jpg", "f-1.depth.png", "f-2.depth.png", "depth.png"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in find_images(tmp_path)] == ["depth.png", "f-0.color.png", "f-1.color.jpg", "f-2.depth.png"]


@pytest.mark.parametrize("colour", ["color", "rgb"])
def test_find_images_leaves_out_the_depth_folder_of_frames_and_pictures_of_depth_stay(tmp_path, colour):
    deep, picture = np.full((8, 8), 3000, np.uint16), np.zeros((8, 8, 3), np.uint8)
    for name, values in {
        f"scene/{colour}/0.png": picture, "scene/depth/0.png": deep, "scene/depth/1.png": picture, "depth/0.png": deep,
    }.items():  # fmt: skip
        write_image(tmp_path / name, values)
    found = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]
    assert found == sorted(["depth/0.png", f"scene/{colour}/0.png", "scene/depth/1.png"])


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
