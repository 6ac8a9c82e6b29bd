"""What a frozen extractor finds, computed once and kept: one HDF5 part a scene and modality."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import torch

from minima_core.config import digest
from minima_core.data.index import Scene
from minima_core.data.pairs import PairSource
from minima_core.data.parts import Parts, make_parts, part_paths
from minima_core.geometry.coords import rescale_points
from minima_core.geometry.project import sample_depth
from minima_core.io.hdf5 import new_hdf5, reading
from minima_core.io.open_files import OpenFiles
from minima_core.types import RGB


@dataclass(frozen=True)
class ImageFeatures:
    """The features of one image, as numpy arrays.

    Attributes:
        kpts: (N, 2) float32 pixels of the resized image.
        scores: (N,) float32.
        desc: (N, D) float16: half precision is ample for directions, and never used for places.
        depth: (N,) float32 at the keypoints, NaN where unknown.
        size: (2,) int64 width and height of the resized image.
        scale: (2,) float64 resized over original size, x and y.
    """

    kpts: np.ndarray
    scores: np.ndarray
    desc: np.ndarray
    depth: np.ndarray
    size: np.ndarray
    scale: np.ndarray


_RAGGED = ("kpts", "scores", "desc", "depth")
_FIXED = ("size", "scale")
Extract = Callable[[np.ndarray], ImageFeatures]


class FeatureCache:
    """Features of all images of a source, read from its parts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.key = digest(sorted(f"{path.parent.name}/{path.name}" for path in parts.values()))
        self._files = OpenFiles(lambda path: h5py.File(path, "r"))

    def get(self, scene: str, modality: str, i: int) -> ImageFeatures:
        """Return the features of image ``i`` of a scene in a modality."""
        part = self._parts[scene, modality]
        with reading(str(part), "remove it and run again"), self._files.use(part) as file:
            a, b = (int(n) for n in file["offset"][i : i + 2])
            return ImageFeatures(*(file[name][a:b] for name in _RAGGED), *(file[name][i] for name in _FIXED))

    def close(self) -> None:
        """Close all parts; they open again when needed."""
        self._files.close()


def build(source: PairSource, folder: Path, extract: Extract, *, key: str, workers: int = 1) -> FeatureCache:
    """Return the features of every image of ``source`` in RGB and every modality of it, computing what is missing.

    Args:
        source: whose images.
        folder: where parts are kept, shared by all sources and extractors.
        extract: features of one (H, W, 3) uint8 image, ``depth`` left NaN; called from ``workers`` threads.
        key: digest of everything that decides what ``extract`` returns.
        workers: threads.
    """
    kinds = (RGB, *source.names)
    parts = part_paths(source, folder / key[:16], kinds, suffix=".h5")
    scenes = {scene.name: scene for scene in source.scenes}

    @lru_cache(maxsize=32)  # a scene's modalities follow each other, and their depth is the same
    def depth(name: str, i: int) -> np.ndarray | None:
        return source.depth(scenes[name], i)

    def make(scene: Scene, modality: str, i: int) -> ImageFeatures:
        if not source.has(scene, i, modality):  # nothing will ask for it; the place keeps the numbering
            return extract(np.zeros((int(scene.size[i][1]), int(scene.size[i][0]), 3), np.uint8))
        return _with_depth(extract(source.image(scene, i, modality)), depth(scene.name, i))

    def write(scene: Scene, modality: str, found: Iterator[ImageFeatures]) -> None:
        _write(parts[scene.name, modality], list(found))

    missing = [
        (scene, kind)
        for scene in source.scenes
        for kind in kinds
        if source.offers(scene, kind) and not _is_whole(parts[scene.name, kind])
    ]
    make_parts(missing, make, write, workers=workers, what=f"features of {source.split} images")
    source.close()  # the parts hold what training reads
    return FeatureCache(parts)


def _is_whole(part: Path) -> bool:
    """Say whether a part is there and can be read; one that a power cut has emptied is made again."""
    try:
        with h5py.File(part, "r") as file:
            return {"offset", *_RAGGED, *_FIXED} <= set(file)
    except OSError:
        return False


def _with_depth(found: ImageFeatures, depth: np.ndarray | None) -> ImageFeatures:
    """Return the features with depth at the keypoints, read from the map at its own resolution."""
    if depth is None or not len(found.kpts):
        return found
    sx, sy = found.scale
    points = rescale_points(torch.from_numpy(found.kpts).double(), (1 / sx, 1 / sy))
    at = sample_depth(torch.from_numpy(depth).double()[None], points[None])[0]
    return ImageFeatures(found.kpts, found.scores, found.desc, at.float().numpy(), found.size, found.scale)


def _write(path: Path, images: list[ImageFeatures]) -> None:
    offset = np.cumsum([0, *(len(found.scores) for found in images)])
    with new_hdf5(path) as file:
        file.create_dataset("offset", data=offset)
        for name in _RAGGED:
            file.create_dataset(name, data=np.concatenate([getattr(found, name) for found in images]))
        for name in _FIXED:
            file.create_dataset(name, data=np.stack([getattr(found, name) for found in images]))
