"""What is wrong with an index, without settings and in one pass over its scenes; the stage validate asks for more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from minima_core.checks.cameras import camera_problem, homography_problem, pose_error
from minima_core.checks.structure import agreement, image_field
from minima_core.data.importers.base import IMC_2021, MEGADEPTH_1500, MODALITIES, Skipped
from minima_core.data.index import Scene, read_scene
from minima_core.data.shards import Shard
from minima_core.errors import DataError
from minima_core.geometry.overlap import depth_overlap
from minima_core.io.depth import read_depth
from minima_core.io.images import image_size, read_image
from minima_core.manifest import Relation, SceneEntry, SceneManifest, file_sha256
from minima_core.parallel import map_jobs
from minima_core.random import rng

RIGID = 1e-3  # largest deviation of a pose from a rigid motion
AGREES = 3.5  # deviations that edges at the same place stand out by; a wrong image has 1 to 4, a right one 5 and more
MEETS = 0.2  # of the overlap that is stated, at least as much must be found through depth and pose


def check_index(index: Path, raw: Path | None, *, sample: int = 12, seed: int = 0, workers: int = 1) -> Skipped:
    """Return the faults of an index, by kind: how many and the names of the first.

    Records are looked at all, and the size of every image; the pixels of ``sample`` images a scene, and as many pairs,
    drawn by the scene's name. Without ``raw`` only the records are.

    Raises:
        DataError: if the index or a scene cannot be read.
    """
    manifest = SceneManifest.load(index)
    one = partial(_check_scene, index, raw, sample, seed, manifest.relation)
    faults = Skipped()
    files: dict[int, list[_File]] = {}
    for found, of_scene in map_jobs(one, manifest.scenes, workers=workers, what="checking scenes"):
        faults.merge(found)
        for file in of_scene:
            files.setdefault(file.bytes, []).append(file)
    if raw is not None:
        _check_copies(raw, files.values(), faults)
    twice = [name for name, count in Counter(entry.name for entry in manifest.scenes).items() if count > 1]
    faults.add("scene listed twice", twice)
    return faults


@dataclass(frozen=True)
class _File:
    """An image file: where it lies, its scene's split and how large it is."""

    path: str
    split: str
    bytes: int


def _check_copies(raw: Path, of_one_size: Iterable[list[_File]], faults: Skipped) -> None:
    """Look for files of one content in two splits; only those of one size are read."""
    for files in of_one_size:
        if len({file.split for file in files}) == 1:
            continue
        first: dict[str, _File] = {}
        for file in files:
            other = first.setdefault(file_sha256(raw / file.path), file)
            if other.split != file.split:
                faults.add("image that is a copy of one in another split", [f"{file.path} - {other.path}"])


def _check_scene(
    index: Path, raw: Path | None, sample: int, seed: int, relation: Relation, entry: SceneEntry
) -> tuple[Skipped, list[_File]]:
    scene = read_scene(index, entry.name)
    posed = scene.H_0to1 is None if relation == "both" else relation == "depth"
    faults = Skipped()
    files: list[_File] = []
    said = (entry.name, entry.split, entry.images, entry.pairs)
    if said != (scene.name, scene.split, len(scene.image), len(scene.pairs)):
        faults.add("scene that index.json describes otherwise", [entry.name])
    if scene.split != "test" and scene.name in MEGADEPTH_1500 | IMC_2021:
        faults.add("scene of a benchmark that is not in the split test", [scene.name])
    _check_records(scene, posed, faults)
    if raw is not None:
        there = _check_files(scene, raw, faults)
        random = rng(seed, scene.name, "check")
        some = [i for i in _some(len(scene.image), sample, random) if i in there]
        _check_pixels(scene, raw, some, faults)
        _check_partners(scene, raw, index / MODALITIES, some, faults)
        if posed:
            pairs = [k for k in _some(len(scene.pairs), sample, random) if set(scene.pairs[k].tolist()) <= there]
            _check_meeting(scene, raw, pairs, faults)
        files = [_File(scene.image[i], scene.split, (raw / scene.image[i]).stat().st_size) for i in sorted(there)]
    return faults, files


def _check_records(scene: Scene, posed: bool, faults: Skipped) -> None:
    ids = [scene.image_id(i) for i in range(len(scene.image))]
    faults.add("image id that stands twice in its scene", [name for name, n in Counter(ids).items() if n > 1])
    names = [f"{ids[i]} - {ids[j]}" for i, j in scene.pairs]
    faults.add("pair listed twice", [name for name, n in Counter(names).items() if n > 1])
    own = scene.pairs[:, 0] == scene.pairs[:, 1]
    faults.add("pair of an image with itself", [names[k] for k in np.flatnonzero(own)])
    overlap = np.flatnonzero(~((scene.overlap > 0) & (scene.overlap <= 1)))
    faults.add("pair whose overlap is not in (0, 1]", [names[k] for k in overlap])
    sizes = [(int(w), int(h)) for w, h in scene.size]
    if posed:
        cameras = [
            name for name, K, size in zip(ids, scene.K, sizes, strict=True) if all(size) and camera_problem(K, size)
        ]
        faults.add("image whose K is no pinhole camera of it", cameras)
        faults.add(
            "image without a rigid pose", [n for n, T in zip(ids, scene.T_w2c, strict=True) if pose_error(T) > RIGID]
        )
    elif scene.H_0to1 is not None:
        ends = [sizes[i] for i in scene.pairs[:, 0]]
        bad = [name for name, H, size in zip(names, scene.H_0to1, ends, strict=True) if homography_problem(H, size)]
        faults.add("pair whose homography flattens, mirrors or sends it to infinity", bad)
    else:
        faults.add("scene without homographies in an index of them", [scene.name])


def _check_files(scene: Scene, raw: Path, faults: Skipped) -> set[int]:
    """Return which images are there as the index describes them, and have their depth map if they should."""
    there = set()
    for i, (image, depth) in enumerate(zip(scene.image, scene.depth, strict=True)):
        try:
            size = image_size(raw / image)
        except DataError:
            faults.add("image that is not there or cannot be read", [image])
            continue
        if size != tuple(scene.size[i]):
            faults.add("image of another size than the index says", [image])
        elif depth and not (raw / depth).is_file():
            faults.add("depth map that is not there", [depth])
        else:
            there.add(i)
    return there


def _check_pixels(scene: Scene, raw: Path, images: Iterable[int], faults: Skipped) -> None:
    for i in images:
        try:
            if not np.ptp(read_image(raw / scene.image[i])):
                faults.add("image without any contrast", [scene.image[i]])
        except DataError:
            faults.add("image that is not there or cannot be read", [scene.image[i]])
        if scene.depth[i]:
            try:
                depth = read_depth(raw / scene.depth[i])
            except DataError:
                faults.add("depth map that cannot be read or holds labels", [scene.depth[i]])
                continue
            if (depth.shape[1], depth.shape[0]) != tuple(scene.size[i]):
                faults.add("depth map of another size than its image", [scene.depth[i]])
            elif not depth.any():
                faults.add("depth map that knows nothing", [scene.depth[i]])


def _check_partners(scene: Scene, raw: Path, modalities: Path, images: Sequence[int], faults: Skipped) -> None:
    """Compare photographs with the images of other sensors that an index brings; of the wrong pairs none agrees."""
    for folder in sorted(modalities.iterdir()) if modalities.is_dir() else ():
        scores, names = [], []
        with Shard(folder / f"{scene.name}.h5") as shard:
            for i in images:
                if (name := scene.image_id(i)) in shard.ids:
                    found = agreement(image_field(read_image(raw / scene.image[i])), image_field(shard.image(name)))
                    if found is not None:
                        scores.append(found.score)
                        names.append(name)
        if scores and np.median(scores) < AGREES:
            faults.add(f"{folder.name} image that does not fit its photograph, in a scene where most do not", names)


def _check_meeting(scene: Scene, raw: Path, pairs: list[int], faults: Skipped) -> None:
    """Compare the stated overlap with that through depth and pose; poses turned round, or of another scale, miss."""
    stated, found, names = [], [], []
    for k in pairs:
        ends = [int(n) for n in scene.pairs[k]]
        if not all(_usable(scene, n) for n in ends):
            continue
        try:
            depths = [torch.from_numpy(read_depth(raw / scene.depth[n])) for n in ends]
        except DataError:
            continue
        K, T_w2c = torch.from_numpy(scene.K[ends]), torch.from_numpy(scene.T_w2c[ends])
        found.append(float(depth_overlap(depths, K, T_w2c, torch.tensor([[0, 1]]))))
        stated.append(float(scene.overlap[k]))
        names.append(" - ".join(scene.image_id(n) for n in ends))
    if found and np.median(found) < MEETS * np.median(stated):
        faults.add("pair whose depth and poses do not meet, in a scene where most do not", names)


def _usable(scene: Scene, i: int) -> bool:
    size = (int(scene.size[i][0]), int(scene.size[i][1]))
    return bool(scene.depth[i]) and pose_error(scene.T_w2c[i]) < RIGID and not camera_problem(scene.K[i], size)


def _some(count: int, sample: int, random: np.random.Generator) -> list[int]:
    return sorted(random.choice(count, min(count, sample), replace=False).tolist())
