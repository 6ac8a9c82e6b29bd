"""Images in and out: RGB uint8 in memory whatever the file holds; OpenCV's BGR never leaves this module."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from minima_core.errors import DataError
from minima_core.io.atomic import write_bytes

if TYPE_CHECKING:
    import torch

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif", ".jfif", ".jp2", ".j2k"}
)
RAW = ".raw.png"  # of files that hold the raw values of a picture beside them, by ``encode_raw``
RECORD = "synthesis.json"  # of what `minima synthesise` made, beside it
MAX_PIXELS = 178_956_970  # Pillow opens nothing larger: that is a bomb, or a scan that must be tiled first
RANGES = (1.0, 255.0, 65535.0)  # in which the values of pictures are usually written, from 0
INNER = (0.5, 99.5)  # percentiles between which values that use none of them are stretched
EXTRA_SAMPLES = 338  # TIFF's tag that says what a fourth band is
SAMPLE_FORMAT = 339  # what its values are: 1, the default, says unsigned integers
NODATA = 42113  # GDAL's tag in a TIFF: the value that says that nothing was measured, as text


def find_images(folder: Path) -> list[Path]:
    """Return all images under ``folder``, any depth and any case of extension, sorted by path; nothing that is hidden.

    Measures are no image: ``<stem>.raw.png`` is left out where ``<stem>.jpg`` or ``<stem>.png`` lies beside it, and
    ``<stem>.depth.png`` where ``<stem>.color.jpg`` or ``<stem>.color.png`` does, as in 7-Scenes, and gray of 16 bits in
    a folder ``depth`` beside ``color`` or ``rgb``, as in ScanNet and TUM.

    Raises:
        DataError: if the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; give a folder that holds images")
    found = sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in p.relative_to(folder).parts)
        and p.is_file()
        and not _is_beside(p, RAW, "")
        and not _is_beside(p, ".depth.png", ".color")
        and not _is_frames_depth(p)
    )
    if not found:
        looked = ", ".join(sorted(SUFFIXES))
        raise DataError(
            f"no images in {folder} (looked for {looked}, any depth); put some there or name another folder"
        )
    return found


def find_made(folder: Path) -> list[Path]:
    """Return the folders below ``folder`` whose images `minima synthesise` made of others."""
    return sorted(record.parent for record in folder.rglob(RECORD) if record.parent != folder)


def _is_beside(path: Path, ending: str, picture: str) -> bool:
    """Say whether a file's name ends so, and a picture lies beside it whose name ends with ``picture`` instead."""
    stem = path.name.removesuffix(ending)
    return stem != path.name and any(path.with_name(stem + picture + suffix).is_file() for suffix in (".jpg", ".png"))


def _is_frames_depth(path: Path) -> bool:
    """Say whether a file is a depth map in its folder of a sequence of frames; pictures of depth have 8 bits."""
    if path.parent.name != "depth" or not any((path.parents[1] / colour).is_dir() for colour in ("color", "rgb")):
        return False
    with path.open("rb") as file:
        head = file.read(26)
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:] == b"\x10\x00"  # its bits, and that it has no colour


def read_image(file: Path | bytes, name: str = "encoded image") -> np.ndarray:
    """Return an image file, or the bytes of one, as (H, W, 3) uint8 RGB.

    EXIF orientation is applied; gray is repeated, palette and CMYK are converted, alpha is laid over white; the fourth
    band of a TIFF is alpha only where the file says so, and left out otherwise. ``name`` is what messages call bytes.

    Values of more than 8 bits, integers or floats, are scaled by the first of the ranges 0 to 1, 0 to 255 and 0 to
    65535 that holds them all, if they are one value or spread over a quarter of it; else they are stretched between
    their 0.5th and 99.5th percentile, all bands alike. What is not finite, or the value that a TIFF declares as its no
    data (GDAL_NODATA), is missing: left out of that, and black.

    Raises:
        DataError: if the file is missing, may not be read, is truncated, too large or no image.
    """
    with _opened(file, name) as image:
        _check_sums(image, file)
        plain = image.format == "JPEG" and image.mode == "RGB" and _orientation(image) == 1
        decoded = _jpeg_pixels(file) if plain else None
        return _to_rgb(image, file) if decoded is None else decoded


def read_ids(path: Path) -> np.ndarray:
    """Return a map of ids, one a pixel, as (H, W) uint8.

    Raises:
        DataError: if the file is missing, may not be read or is no image.
    """
    with _opened(path, "") as image:
        _check_sums(image, path)
        return np.array(image.convert("L") if image.mode != "L" else image)


def image_size(file: Path | bytes, name: str = "encoded image") -> tuple[int, int]:
    """Return the (width, height) that ``read_image`` gives, without decoding the pixels of what Pillow can open.

    Raises:
        DataError: if the file is missing, may not be read or is no image.
    """
    with _opened(file, name) as image:
        width, height = image.size
        turned = image.format != "TIFF" and _orientation(image) >= 5  # sides are swapped
    return (height, width) if turned else (width, height)


def exif_orientation(file: Path | bytes, name: str = "encoded image") -> int:
    """Return how an image's EXIF says that it lies: 1 as it is, 2 to 8 mirrored or turned.

    Raises:
        DataError: if the file is missing, may not be read or is no image.
    """
    with _opened(file, name) as image:
        return _orientation(image)


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _check_sums(image: Image.Image, file: Path | bytes) -> None:
    """Have Pillow compare the checksums of a PNG; those of the pixels it passes over when it decodes them."""
    if isinstance(image, PngImageFile):
        with Image.open(file if isinstance(file, Path) else io.BytesIO(file)) as whole:
            whole.verify()


def _jpeg_pixels(file: Path | bytes) -> np.ndarray | None:
    """Return a JPEG's pixels as Pillow gives them, in less time; None where Pillow must say what is wrong.

    OpenCV decodes by the same library, but fills up a file that was cut off with gray and returns it: so only a whole
    one, which ends with its end marker, is given to it.
    """
    data = file.read_bytes() if isinstance(file, Path) else file
    if not data.endswith(b"\xff\xd9"):
        return None
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


@contextmanager
def _opened(file: Path | bytes, name: str) -> Iterator[Image.Image]:
    """Yield an image whose pixels are not read yet; what goes wrong in the block is told in one line."""
    what = str(file) if isinstance(file, Path) else name
    if not what.isprintable() and any("\udc80" <= c <= "\udcff" for c in what):  # bytes that Python could not decode
        raise DataError(f"the file name {what!r} is not UTF-8; rename the file")
    try:
        with _open(file, what) as image:
            yield image
    except FileNotFoundError:
        raise DataError(f"no file {what}; give the path of an image") from None
    except IsADirectoryError:
        raise DataError(f"{what} is a folder; give the path of an image") from None
    except UnidentifiedImageError:
        raise DataError(f"{what} is not an image; replace or remove it") from None
    except Image.DecompressionBombError:
        raise DataError(f"{what} has more than {MAX_PIXELS} pixels; tile it first") from None
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the file system; Pillow's own have no number
            raise DataError(f"cannot read {what}: {error.strerror}; make it readable or remove it") from None
        raise DataError(f"cannot read {what}: {error}; the file is damaged, replace or remove it") from None


def _open(file: Path | bytes, what: str) -> Image.Image:
    try:
        image = Image.open(file if isinstance(file, Path) else io.BytesIO(file))
    except UnidentifiedImageError:
        data = file.read_bytes() if isinstance(file, Path) else file
        if len(data) < 16 or not data.startswith((b"II", b"MM")):
            raise
        return _open_tiff(data, what)
    if isinstance(image, TiffImageFile) and _is_planar(image.tag_v2):
        image.close()
        raise _unread(image.tag_v2, what)
    return image


def _open_tiff(data: bytes, what: str) -> Image.Image:
    """Return a TIFF of bands that Pillow does not know, such as three of floats, as 8 bits."""
    stream = io.BytesIO(data)
    tags = ImageFileDirectory_v2(stream.read(16 if data[2:4] in (b"+\0", b"\0+") else 8))
    stream.seek(tags.next)
    tags.load(stream)
    if tags.get(ExifTags.Base.ImageWidth, 0) * tags.get(ExifTags.Base.ImageLength, 0) > MAX_PIXELS:
        raise Image.DecompressionBombError
    bands, bits = _bands(tags)
    values = None if bands == 2 or _is_planar(tags) else _deep_values(data, bits)  # OpenCV makes two bands black
    if values is None:
        raise _unread(tags, what)
    values = _known(values, tags)
    return Image.fromarray(eight_bits(values))


def _bands(tags: ImageFileDirectory_v2) -> tuple[int, int]:
    return tags.get(ExifTags.Base.SamplesPerPixel, 1), max(tags.get(ExifTags.Base.BitsPerSample, (1,)))


def _is_planar(tags: ImageFileDirectory_v2) -> bool:
    """Tell whether the bands of a TIFF lie one behind another: of more than 8 bits, no reader here gives them right."""
    bands, bits = _bands(tags)
    return bands > 1 and bits > 8 and tags.get(ExifTags.Base.PlanarConfiguration) == 2


def _unread(tags: ImageFileDirectory_v2, what: str) -> DataError:
    bands, bits = _bands(tags)
    planes = ", one behind another" if _is_planar(tags) else ""
    return DataError(
        f"{what} is a damaged TIFF, or of a kind that is not read ({bands} x {bits} bits{planes}); "
        "convert it: gdal_translate -b 1 -b 2 -b 3 -ot Float32 -co INTERLEAVE=PIXEL OLD NEW (-b 1 alone for gray)"
    )


def _deep_values(data: bytes, bits: int) -> np.ndarray | None:
    """Return the first three bands of a PNG or TIFF as stored, (H, W, 3), one band repeated; None if unread."""
    # What does not call itself RGB is made gray in 16 bits, unless colour is asked for; asked for in more, it fails.
    as_colour = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    # The tags of a GeoTIFF are unknown to it, which it would tell of each file.
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), as_colour if bits <= 16 else cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if bgr is None:
        return None
    return np.repeat(bgr[..., None], 3, axis=2) if bgr.ndim == 2 else bgr[..., 2::-1]


def _known(values: np.ndarray, tags: ImageFileDirectory_v2) -> np.ndarray:
    """Return the values of a TIFF with NaN in the place of what it declares as no data."""
    try:
        nodata = np.float64(str(tags.get(NODATA, "nan")))
    except ValueError:
        return values
    with np.errstate(over="ignore"):  # the lowest number of float64 is infinite in float32, as the pixels then are
        missing = values == (nodata.astype(values.dtype) if values.dtype.kind == "f" else nodata)
    return np.where(missing, np.nan, values) if missing.any() else values


def eight_bits(values: np.ndarray) -> np.ndarray:
    """Return values of more than 8 bits, of any shape, as uint8 by the rule of ``read_image``."""
    return _scaled(values, *_interval(values))


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Return what becomes 0 and 255, by the rule of ``read_image``."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, RANGES[0]
    low, high = float(known.min()), float(known.max())
    top = next((top for top in RANGES if high <= top), RANGES[-1])
    if low == high or (low >= 0 and high <= top and high - low >= top / 4):
        return 0.0, top
    first, last = (float(value) for value in np.percentile(known, INNER))
    return (first, last) if first < last else (low, high)


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    values = values if values.dtype == np.float32 else values.astype(np.float64)
    values = np.where(np.isfinite(values), values, np.float32(low))
    return np.clip((values - low) * (255.0 / (high - low)), 0, 255).round().astype(np.uint8)


def _to_rgb(image: Image.Image, file: Path | bytes) -> np.ndarray:
    # Of 16 bits of a colour Pillow keeps the upper 8: right where values use the range, and black where they do not.
    deep = isinstance(image, PngImageFile | TiffImageFile) and any(";16" in str(tile[3]) for tile in image.tile)
    halved = deep and not image.mode.startswith("I")
    image.load()
    if halved:
        _restore_contrast(image, file.read_bytes() if isinstance(file, Path) else file)
    if image.mode == "RGBA" and isinstance(image, TiffImageFile) and EXTRA_SAMPLES not in image.tag_v2:
        image = image.convert("RGB")
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in {"I;16", "I;16B", "I;16L", "I", "F"}:
        values = np.asarray(image)
        if isinstance(image, TiffImageFile):
            if image.mode == "I" and image.tag_v2.get(SAMPLE_FORMAT, (1,)) == (1,):
                values = values.view(np.uint32)  # Pillow has no mode for these, and takes the upper half for negative
            values = _known(values, image.tag_v2)
        return np.repeat(eight_bits(values)[..., None], 3, axis=2)
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        paper = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(paper, rgba)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _restore_contrast(image: Image.Image, data: bytes) -> None:
    """Replace the colours of a picture that Pillow halved the bits of, where those do not use the range of 16 bits."""
    values = _deep_values(data, 16)
    if values is None or values.shape[:2] != (image.height, image.width):
        return
    if isinstance(image, TiffImageFile):
        values = _known(values, image.tag_v2)
    low, high = _interval(values)
    if (low, high) != (0.0, RANGES[-1]) or values.dtype.kind == "f":  # some hold no data
        colours = Image.fromarray(_scaled(values, low, high))
        if "A" in image.getbands():
            colours.putalpha(image.getchannel("A"))
        image.paste(colours)


def encode_png(image: np.ndarray) -> bytes:
    """Return (H, W, 3) or (H, W) as PNG bytes (lossless, the same bytes for the same pixels); uint8, gray also uint16.

    Gray uint8 pictures are lines on paper, ids or tones in steps: coded as runs, in a third of the time.
    """
    if image.ndim == 2 and image.dtype == np.uint8:
        runs = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
        return _encode(".png", image, [*runs, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE])
    return _encode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])


def encode_palette_png(image: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> bytes:
    """Return (H, W, 3) uint8 whose colours are all among at most four as PNG bytes of two bits a pixel.

    Three times as fast as ``encode_png`` and half the size. A colour that is not in the palette becomes its first.
    """
    index = np.zeros(image.shape[:2], np.uint8)
    for k, colour in enumerate(palette[1:], start=1):
        index |= np.minimum(cv2.inRange(image, colour, colour), np.uint8(k))
    picture = Image.fromarray(index, "P")
    picture.putpalette([value for colour in palette for value in colour])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE, bits=2)
    return buffer.getvalue()


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """Return (H, W, 3) uint8 RGB as JPEG bytes without chroma subsampling, or (H, W) as gray ones."""
    return _encode(
        ".jpg",
        image,
        [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
    )


def _encode(suffix: str, image: np.ndarray, flags: list[int]) -> bytes:
    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(suffix, bgr, flags)[1])


def decode(data: bytes | np.ndarray, name: str = "encoded image") -> np.ndarray:
    """Return encoded bytes as (H, W, 3) uint8 RGB.

    Raises:
        DataError: if the bytes are no whole image; ``name`` is what the message calls them.
    """
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise DataError(f"{name} cannot be decoded; the file is damaged, make it again")
    return decoded


def encode_raw(values: np.ndarray) -> tuple[bytes, list[float]]:
    """Return (H, W) float32 as a 16-bit PNG and its range: 0 is the lowest value, 65535 the highest."""
    low, high = float(values.min()), float(values.max())
    scaled = (values.astype(np.float64) - low) / max(high - low, 1e-30) * 65535
    return encode_png(np.round(scaled).astype(np.uint16)), [low, high]


def decode_raw(data: bytes, span: Sequence[float], name: str = "raw values") -> np.ndarray:
    """Return the (H, W) float32 that ``encode_raw`` made a PNG of, to 1/65535 of their range.

    Raises:
        DataError: if the bytes are no whole PNG.
    """
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise DataError(f"{name} cannot be decoded; the file is damaged, make it again")
    low, high = span
    return (low + decoded.astype(np.float64) * ((high - low) / 65535)).astype(np.float32)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) or (H, W) uint8 atomically; ``.png`` is lossless, ``.jpg`` quality 95.

    Raises:
        DataError: if the suffix names no format that Pillow writes.
    """
    suffix = path.suffix.lower()
    if suffix == ".png":
        data = encode_png(image)
    elif suffix in {".jpg", ".jpeg"}:
        data = encode_jpeg(image)
    else:
        buffer = io.BytesIO()
        try:
            Image.fromarray(image).save(buffer, format=Image.registered_extensions()[suffix])
        except KeyError:
            raise DataError(f"cannot write {path}: unknown image format; use .png or .jpg") from None
        data = buffer.getvalue()
    write_bytes(path, data)


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """Return (H, W, 3) uint8 as (3, H, W) float32 in [0, 1]."""
    import torch  # takes seconds, and synthesis needs none of it

    # torch warns of arrays that may not be written, as those of Pillow are
    return torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1).float().div_(255.0)
