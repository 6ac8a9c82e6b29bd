"""MegaDepth's folder layout for scenes with cameras: where files lie, and how they become a scene of the index."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from minima_core.data.index import Scene
from minima_core.errors import DataError, redo
from minima_core.geometry.overlap import depth_overlap
from minima_core.io.atomic import write_json
from minima_core.io.depth import read_depth
from minima_core.io.images import image_size
from minima_core.manifest import Split
from minima_core.parallel import map_jobs
from minima_core.random import rng

CAMERAS = "cameras.json"
BLOCK = 64  # images whose depth maps are in memory at a time
ALONE = 1000  # pairs that are looked at sooner than processes are started
REMEDY = f"make the raw scenes again with {redo('download')}"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Camera:
    """One camera of a scene: (3, 3) intrinsics and (4, 4) world to camera, float64."""

    stem: str
    K: np.ndarray
    T_w2c: np.ndarray


def image_path(scene: str, stem: str) -> str:
    """Return where an image lies, relative to the raw folder."""
    return f"{scene}/dense0/imgs/{stem}.jpg"


def depth_path(scene: str, stem: str) -> str:
    """Return where a depth map lies, relative to the raw folder."""
    return f"{scene}/dense0/depths/{stem}.h5"


def material_path(scene: str, stem: str) -> str:
    """Return where a map of material ids lies, relative to the raw folder."""
    return f"{scene}/dense0/materials/{stem}.png"


def tissue_path(scene: str, stem: str) -> str:
    """Return where a map of tissues lies, relative to the raw folder."""
    return f"{scene}/dense0/tissues/{stem}.png"


def write_cameras(root: Path, scene: str, split: Split, cameras: list[Camera]) -> None:
    """Write a scene's cameras; written last, they say that the scene is whole."""
    records = {c.stem: {"K": c.K.tolist(), "T_w2c": c.T_w2c.tolist()} for c in cameras}
    write_json(root / scene / CAMERAS, {"split": split, "cameras": records})


def read_cameras(root: Path, scene: str) -> tuple[Split, list[Camera]]:
    """Return a scene's split and cameras.

    Raises:
        DataError: if the file is missing or damaged.
    """
    path = root / scene / CAMERAS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cameras = [
            Camera(stem, np.array(r["K"], np.float64), np.array(r["T_w2c"], np.float64))
            for stem, r in sorted(content["cameras"].items())
        ]
        return content["split"], cameras
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"cannot read {path} ({type(error).__name__}: {error}); {REMEDY}") from None


def scene_names(root: Path, file: str) -> list[str]:
    """Return the scenes under ``root`` that have ``file``, sorted.

    Raises:
        DataError: if there is none.
    """
    names = sorted(path.parent.name for path in root.glob(f"*/{file}"))
    if not names:
        raise DataError(f"no scene in {root} (no */{file}); {REMEDY}")
    return names


def posed_scene(
    root: Path,
    name: str,
    *,
    overlap: tuple[float, float],
    max_pairs: int,
    seed: int,
    candidates: np.ndarray | None = None,
    workers: int = 1,
) -> Scene:
    """Return a scene of posed depth images with its pairs.

    Pairs (i, j), i < j, are those whose overlap lies in (low, high]; where there are more than ``max_pairs``, that many
    are drawn, evenly over the range of overlaps, because most pairs of a dense sequence are nearly the same view.
    ``candidates`` (M, 2) are the pairs to look at, by place among the cameras in order of their stems; None for all.

    Raises:
        DataError: if a file is missing or damaged.
    """
    split, cameras = read_cameras(root, name)
    sizes = [_size(root / image_path(name, c.stem)) for c in cameras]
    K, T_w2c = np.stack([c.K for c in cameras]), np.stack([c.T_w2c for c in cameras])
    if candidates is None:
        candidates = np.stack(np.triu_indices(len(cameras), 1), -1)
    depths = [depth_path(name, c.stem) for c in cameras]
    shares = _overlaps([root / path for path in depths], sizes, K, T_w2c, candidates, workers)
    kept = np.flatnonzero((shares > overlap[0]) & (shares <= overlap[1]))
    chosen = _spread(shares[kept], max_pairs, rng(seed, name, "pairs"))
    if not len(kept):
        logger.warning("scene %s has no pair with overlap in (%g, %g]", name, *overlap)
    material = [material_path(name, c.stem) for c in cameras]
    return Scene(
        name,
        split,
        [image_path(name, c.stem) for c in cameras],
        depths,
        [path if (root / path).is_file() else "" for path in material],
        np.array(sizes, np.int64),
        K,
        T_w2c,
        candidates[kept[chosen]].astype(np.int64),
        shares[kept[chosen]],
    )


def _overlaps(
    depths: list[Path],
    sizes: list[tuple[int, int]],
    K: np.ndarray,
    T_w2c: np.ndarray,
    pairs: np.ndarray,
    workers: int,
) -> np.ndarray:
    """Return (M,) overlaps of pairs; a job holds the depth maps of one block of images in memory, and one more."""
    workers = workers if len(pairs) > ALONE else 1
    side = BLOCK if workers == 1 else min(BLOCK, -(-len(depths) // (2 * workers)))  # the first blocks have most pairs
    rows = [rows for b in range(0, len(depths), side) if len(rows := np.flatnonzero(pairs[:, 0] // side == b // side))]
    jobs = [(depths, sizes, K, T_w2c, pairs[of_block]) for of_block in rows]
    shares = np.zeros(len(pairs))
    for of_block, found in zip(rows, map_jobs(_block_overlaps, jobs, workers=workers, what="overlaps"), strict=True):
        shares[of_block] = found
    return shares


def _block_overlaps(
    job: tuple[list[Path], list[tuple[int, int]], np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
    """Return the overlaps of the pairs of one block of first images with any second ones, which pass one by one."""
    paths, sizes, K, T_w2c, pairs = job
    block, local = np.unique(pairs[:, 0], return_inverse=True)
    depths = [_depth(paths[i], sizes[i]) for i in block]
    shares = np.zeros(len(pairs))
    for j in np.unique(pairs[:, 1]):
        rows = np.flatnonzero(pairs[:, 1] == j)
        cameras = [*block, j]
        to_last = np.stack([local[rows], np.full(len(rows), len(block))], 1)
        shares[rows] = depth_overlap(
            [*depths, _depth(paths[j], sizes[j])],
            torch.from_numpy(K[cameras]),
            torch.from_numpy(T_w2c[cameras]),
            torch.from_numpy(to_last),
        ).numpy()
    return shares


def _depth(path: Path, size: tuple[int, int]) -> torch.Tensor:
    depth = read_depth(path)
    if depth.shape != (size[1], size[0]):
        raise DataError(f"{path} is {depth.shape[1]} x {depth.shape[0]}, its image {size[0]} x {size[1]}; {REMEDY}")
    return torch.from_numpy(depth)


def _size(path: Path) -> tuple[int, int]:
    try:
        return image_size(path)
    except DataError as error:
        raise DataError(f"{str(error).split(';')[0]}; {REMEDY}") from None


def _spread(shares: np.ndarray, most: int, random: np.random.Generator, bins: int = 4) -> np.ndarray:
    """Return the sorted positions of at most ``most`` of ``shares``, as evenly over their range as there are any."""
    if len(shares) <= most:
        return np.arange(len(shares))
    edges = np.linspace(shares.min(), shares.max(), bins + 1)[1:-1]
    queues = [random.permutation(np.flatnonzero(np.digitize(shares, edges) == k)).tolist() for k in range(bins)]
    chosen: list[int] = []
    while len(chosen) < most:
        for queue in queues:
            if queue and len(chosen) < most:
                chosen.append(queue.pop())
    return np.sort(np.array(chosen, np.int64))
