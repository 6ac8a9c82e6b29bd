"""The real photographs that texture the synthetic world: files of installed packages, each with its licence."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from minima_core.errors import DataError
from minima_core.io.images import read_image
from minima_core.manifest import file_sha256

WorldName = Literal["train", "benchmark"]
Use = Literal["picture", "tile"]  # hangs on a wall once; repeats over a surface


@dataclass(frozen=True)
class Photograph:
    """One file of an installed package and under which licence it may be used.

    Attributes:
        file: path inside ``package``.
        sha256: of the file, so that another version of the package cannot change the world unnoticed.
        licence: SPDX name, or "public domain" where the package documents that.
        attribution: who made it, where it came from.
        world: the only world it may appear in; no photograph is in both.
    """

    name: str
    package: str
    file: str
    sha256: str
    licence: str
    attribution: str
    world: WorldName
    use: Use = "picture"


# Origins as documented by the packages themselves: the docstrings of skimage.data's functions (scikit-image 0.26) and
# sklearn/datasets/images/README.txt. Left out because their licence is not stated or is no grant ("no known copyright
# restrictions"): moon, page, coins, text, immunohistochemistry, motorcycle (Middlebury), matplotlib's grace_hopper.
PHOTOGRAPHS = (
    Photograph(
        "astronaut",
        "skimage",
        "data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        "public domain",
        "NASA Great Images, portrait of Eileen Collins, https://flic.kr/p/r9qvLn",
        "train",
    ),
    Photograph(
        "chelsea",
        "skimage",
        "data/chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        "CC0-1.0",
        "Stefan van der Walt",
        "train",
    ),
    Photograph(
        "china",
        "sklearn",
        "datasets/images/china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        "CC-BY-2.0",
        "danielbuechele, https://www.flickr.com/photos/danielbuechele/6061409035/ (cropped, tinted, warped)",
        "train",
    ),
    Photograph(
        "retina",
        "skimage",
        "data/retina.jpg",
        "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
        "CC0-1.0",
        "Mikael Häggström, Wikimedia Commons, Fundus_photograph_of_normal_left_eye.jpg",
        "train",
    ),
    Photograph(
        "rocket",
        "skimage",
        "data/rocket.jpg",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        "public domain",
        "SpaceX, https://www.flickr.com/photos/spacexphotos/16511594820/",
        "train",
    ),
    Photograph(
        "brick",
        "skimage",
        "data/brick.png",
        "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
        "CC0-1.0",
        "CC0Textures, Bricks25",
        "train",
        "tile",
    ),
    Photograph(
        "grass",
        "skimage",
        "data/grass.png",
        "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
        "CC0-1.0",
        "linolafett, DeviantArt, Grass-01",
        "train",
        "tile",
    ),
    Photograph(
        "camera",
        "skimage",
        "data/camera.png",
        "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
        "CC0-1.0",
        "Lav Varshney",
        "benchmark",
    ),
    Photograph(
        "coffee",
        "skimage",
        "data/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        "CC0-1.0",
        "Rachel Michetti, courtesy of Pikolo Espresso Bar",
        "benchmark",
    ),
    Photograph(
        "hubble",
        "skimage",
        "data/hubble_deep_field.jpg",
        "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
        "public domain",
        "NASA, HubbleSite news release 2012-37",
        "benchmark",
    ),
    Photograph(
        "flower",
        "sklearn",
        "datasets/images/flower.jpg",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        "CC-BY-2.0",
        "vultilion, https://www.flickr.com/photos/vultilion/6056698931/ (cropped, tinted, warped)",
        "benchmark",
    ),
    Photograph(
        "gravel",
        "skimage",
        "data/gravel.png",
        "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
        "CC0-1.0",
        "CC0Textures, Gravel04",
        "benchmark",
        "tile",
    ),
)


def photographs(world: WorldName, use: Use) -> list[Photograph]:
    """Return the photographs of one world and use."""
    return [photo for photo in PHOTOGRAPHS if photo.world == world and photo.use == use]


def attribution(world: WorldName) -> list[str]:
    """Return one line a photograph of ``world``: name, author, licence; CC BY asks that it travels with the images."""
    return [f"{p.name} ({p.package}): {p.attribution}; {p.licence}" for p in PHOTOGRAPHS if p.world == world]


@cache
def read_photograph(photo: Photograph) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB, read from the installed package; nothing is downloaded or imported.

    Raises:
        DataError: if the package is not installed or ships another file.
    """
    spec = importlib.util.find_spec(photo.package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"package {photo.package} is not installed; the synthetic world needs its {photo.file}")
    path = Path(next(iter(spec.submodule_search_locations))) / photo.file
    if not path.is_file():
        raise DataError(f"no {path}; install {photo.package} again, from its wheel")
    if file_sha256(path) != photo.sha256:
        raise DataError(f"{path} is not the file this world was made for; install the locked {photo.package}")
    return read_image(path)


@cache
def print_of(photo: Photograph, *, long_side: int = 640) -> np.ndarray:
    """Return a photograph as it is printed on posters: (h, w, 3) uint8, not larger than needed, in its full range.

    Some of the photographs are nearly black or pale, and a black poster teaches nothing.
    """
    image = read_photograph(photo)
    scale = min(1.0, long_side / max(image.shape[:2]))
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.float32)
    low, high = np.percentile(image, (1, 99))
    return np.clip((image - low) * (230 / max(float(high - low), 25.0)) + 12, 0, 255).astype(np.uint8)
