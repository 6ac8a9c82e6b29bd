"""The pairs of MegaDepth-1500 (spec/datasets.md section 3.1), which two benchmarks are made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from minima_core.errors import DataError
from minima_core.evaluation.benchmarks._files import read_lines
from minima_core.evaluation.benchmarks._part import ScenePart
from minima_core.evaluation.benchmarks._posed import PosedPair, read_index, relative_pose
from minima_core.io.paths import inside

LIST = "megadepth_test_1500.txt"
PARTS = ("0022_0.1_0.3", "0015_0.1_0.3", "0015_0.3_0.5", "0022_0.3_0.5", "0022_0.5_0.7")
IMAGES = "Undistorted_SfM"
KEYS = ("image_paths", "intrinsics", "poses", "pair_infos")


class Where(ScenePart):
    """Where the data are."""

    root: Path  # holds Undistorted_SfM/<scene>/images, itself or in test/, images/ or what an archive brought
    index: Path  # holds the five npz files


def image_root(root: Path) -> Path:
    """Return the folder that ``Undistorted_SfM`` lies in, also where an archive brought folders of its own above it."""
    places = (root / "test", root / "images", root, *sorted(root.glob("*/images")), *sorted(root.glob("*")))
    return next((base for base in places if (base / IMAGES).is_dir()), root)


def absent(where: Where) -> str:
    """Say what is missing, with the remedy; "" where nothing is."""
    if not (image_root(where.root) / IMAGES).is_dir():
        return f"no {IMAGES} in {where.root}; bring the images of scenes 0015 and 0022 there"
    if not any((where.index / f"{part}.npz").is_file() for part in PARTS):
        return f"no {PARTS[0]}.npz in {where.index}; bring LoFTR's assets/megadepth_test_1500_scene_info"
    return ""


def parts(where: Where) -> list[str]:
    """Return the names of the index files of the wanted scenes, in the order of the list if there is one."""
    path = where.index / LIST
    if path.is_file():
        names = [inside(line.split()[0].removesuffix(".npz"), path) for line in read_lines(path)]
    else:
        names = [part for part in PARTS if (where.index / f"{part}.npz").is_file()]
    return where.of_scenes(names, scene)


def scene(part: str) -> str:
    """Return the scene that an index file is about."""
    return part.partition("_")[0]


def read_part(index: Path, part: str) -> Iterator[PosedPair]:
    """Yield the pairs of one index file; the category is the file's name.

    Raises:
        DataError: naming the file if it is none, or points at an image that it does not hold.
    """
    path = index / f"{part}.npz"
    images, K, poses, pairs = read_index(path, KEYS).values()
    for entry in pairs:
        try:
            i, j = (int(k) for k in entry[0])
            used = [(images[k], K[k], poses[k]) for k in (i, j)]
            if min(i, j) < 0 or any(value is None for one in used for value in one):
                raise IndexError(f"pair {i}, {j} has no camera")
        except (IndexError, TypeError, ValueError) as error:
            raise DataError(f"{path} is no index of MegaDepth-1500 ({error}); get it again") from None
        image0, image1 = (inside(one[0], path) for one in used)
        yield PosedPair(
            name=f"{part}/{Path(image0).stem}-{Path(image1).stem}",
            category=part,
            image0=image0,
            image1=image1,
            K0=np.asarray(K[i], dtype=np.float64),
            K1=np.asarray(K[j], dtype=np.float64),
            T_0to1=relative_pose(poses[i], poses[j]),
        )
