"""What a frozen extractor finds, computed once and kept: one HDF5 part a scene and modality, found again by its inputs.

A part's name holds a digest of the extractor and of the files it read, so a part that exists is the right one: a run
that was killed goes on with the next part, and a new modality leaves the others' parts alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import torch

from minima_core.config import digest
from minima_core.data.index import Scene
from minima_core.data.pairs import PairSource
from minima_core.geometry.coords import rescale_points
from minima_core.geometry.project import sample_depth
from minima_core.io.hdf5 import new_hdf5
from minima_core.manifest import SceneManifest, file_sha256
from minima_core.progress import track
from minima_core.types import RGB

logger = logging.getLogger(__name__)
OPEN_FILES = 128


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

    def __init__(self, parts: dict[tuple[str, str], Path]) -> None:
        self._parts = parts
        self.key = digest(sorted(f"{path.parent.name}/{path.name}" for path in parts.values()))
        self._open: OrderedDict[tuple[str, str], h5py.File] = OrderedDict()

    def get(self, scene: str, modality: str, i: int) -> ImageFeatures:
        """Return the features of image ``i`` of a scene in a modality."""
        file = self._file(scene, modality)
        a, b = (int(n) for n in file["offset"][i : i + 2])
        return ImageFeatures(*(file[name][a:b] for name in _RAGGED), *(file[name][i] for name in _FIXED))

    def _file(self, scene: str, modality: str) -> h5py.File:
        key = (scene, modality)
        if key not in self._open:
            if len(self._open) >= OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            self._open[key] = h5py.File(self._parts[key], "r")
        self._open.move_to_end(key)
        return self._open[key]

    def close(self) -> None:
        """Close all parts."""
        while self._open:
            self._open.popitem()[1].close()


def build(source: PairSource, folder: Path, extract: Extract, *, key: str, workers: int = 1) -> FeatureCache:
    """Return the features of every image of ``source`` in RGB and every modality of it, computing what is missing.

    Args:
        source: whose images.
        folder: where parts are kept, shared by all sources and extractors.
        extract: features of one (H, W, 3) uint8 image, ``depth`` left NaN; called from ``workers`` threads.
        key: digest of everything that decides what ``extract`` returns.
        workers: threads, each computing on one core, so that the result does not depend on how many there are.
    """
    parts = {
        (scene.name, modality): folder / key[:16] / f"{scene.name}.{modality}.{inputs[:16]}.h5"
        for scene in source.scenes
        for modality, inputs in _inputs(source, scene)
    }
    missing = [
        (scene, m) for scene in source.scenes for m in (RGB, *source.names) if not _is_whole(parts[scene.name, m])
    ]
    total = sum(len(scene.image) for scene, _ in missing)
    if total:
        with _threads_restored(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            found = _compute(source, missing, extract, pool, ahead=2 * workers)
            progress = track(found, f"features of {source.split} images", total=total)
            for scene, modality in missing:
                _write(parts[scene.name, modality], [next(progress) for _ in scene.image])
            next(progress, None)  # lets the bar end
    return FeatureCache(parts)


def _is_whole(part: Path) -> bool:
    """Say whether a part is there and can be read; one that a power cut has emptied is made again."""
    try:
        with h5py.File(part, "r") as file:
            return {"offset", *_RAGGED, *_FIXED} <= set(file)
    except OSError:
        return False


@contextmanager
def _threads_restored() -> Iterator[None]:
    """Put back torch's number of threads: setting it in one thread sets what later threads start with."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _inputs(source: PairSource, scene: Scene) -> Iterator[tuple[str, str]]:
    """Yield each modality of a scene and the digest of the files that its features come from."""
    raw = next(entry.digest for entry in SceneManifest.load(source.index).scenes if entry.name == scene.name)
    yield RGB, raw
    for modality in source.names:
        shard = file_sha256(source.shard_path(scene.name, modality))
        yield modality, hashlib.sha256(f"{raw} {shard}".encode()).hexdigest()


def _compute(
    source: PairSource, parts: list[tuple[Scene, str]], extract: Extract, pool: ThreadPoolExecutor, *, ahead: int
) -> Iterator[ImageFeatures]:
    """Yield features in the order of parts and images; ``ahead`` images are under way at a time."""

    scenes = {scene.name: scene for scene in source.scenes}

    @lru_cache(maxsize=32)  # a scene's modalities follow each other, and their depth is the same
    def depth(name: str, i: int) -> np.ndarray | None:
        return source.depth(scenes[name], i)

    def one(scene: Scene, modality: str, i: int) -> ImageFeatures:
        if not source.has(scene, i, modality):  # nothing will ask for it; the place keeps the numbering
            return extract(np.zeros((int(scene.size[i][1]), int(scene.size[i][0]), 3), np.uint8))
        return _with_depth(extract(source.image(scene, i, modality)), depth(scene.name, i))

    jobs = ((scene, modality, i) for scene, modality in parts for i in range(len(scene.image)))
    waiting: deque[Future[ImageFeatures]] = deque()
    for job in jobs:
        waiting.append(pool.submit(one, *job))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


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
