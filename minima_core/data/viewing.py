"""A picture of what an index says of its pairs: points of one view, and where depth and pose take them in the other."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from minima_core.data.importers.base import MODALITIES
from minima_core.data.index import Scene, read_scene
from minima_core.data.pairs import motion
from minima_core.data.shards import Shard
from minima_core.errors import DataError
from minima_core.geometry.camera import homogeneous
from minima_core.geometry.epipolar import fundamental
from minima_core.geometry.homography import warp_homography
from minima_core.geometry.overlap import TOLERANCE, grid
from minima_core.geometry.project import inside, sample_depth, warp_points
from minima_core.io.depth import read_depth
from minima_core.io.images import read_image
from minima_core.manifest import SceneManifest
from minima_core.random import rng

HEIGHT = 300  # of each view in the picture
BAR, GAP = 22, 8
COLUMNS = 14  # points across a view
UNSEEN = (150, 150, 150)


def draw_index(index: Path, raw: Path, *, count: int, seed: int = 0, scene: str = "") -> np.ndarray:
    """Return an (H, W, 3) uint8 picture of ``count`` pairs, drawn from all scenes or one, a row each.

    A point has one colour in both views; it is grey and hollow where the other view does not show it. Where an image
    has no depth map, lines in the second view are where the points of the first must lie. The second view's images of
    other sensors that an index brings follow in columns of their own, with the same points.

    Raises:
        DataError: if there is no such scene or pair, or a file is missing or damaged.
    """
    entries = [entry for entry in SceneManifest.load(index).scenes if entry.pairs and scene in {"", entry.name}]
    if not entries:
        raise DataError(f"{index} has no scene {scene or 'with pairs'}; see its index.json")
    starts = np.cumsum([0, *(entry.pairs for entry in entries)])
    chosen = np.sort(rng(seed, "view", scene).choice(int(starts[-1]), min(count, int(starts[-1])), replace=False))
    rows = []
    for k in chosen:
        s = int(np.searchsorted(starts, k, side="right")) - 1
        rows.append(_draw_pair(read_scene(index, entries[s].name), raw, index / MODALITIES, int(k - starts[s])))
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows])


def _draw_pair(scene: Scene, raw: Path, modalities: Path, pair: int) -> np.ndarray:
    i, j = (int(n) for n in scene.pairs[pair])
    image0, image1 = (read_image(raw / scene.image[n]) for n in (i, j))
    size0, size1 = ((image.shape[1], image.shape[0]) for image in (image0, image1))
    points0 = grid(size0, max(1, size0[0] // COLUMNS))
    others = _others(scene, modalities, j)
    view0, *views1 = (_shrunk(image) for image in (image0, image1, *others.values()))
    scale0, scale1 = HEIGHT / size0[1], HEIGHT / size1[1]
    colours = _colours(points0.numpy(), size0)
    title = f"{scene.image_id(i)} - {scene.image_id(j)}   {scene.split}   overlap {scene.overlap[pair]:.2f}"
    title += "".join(f"   {name}" for name in others)
    if scene.H_0to1 is None and not (scene.depth[i] and scene.depth[j]):
        some = points0[:: max(1, len(points0) // 12)]
        for view1 in views1:
            _draw_lines(scene, (i, j), some, view0, view1, (scale0, scale1))
        title += "   no depth: epipolar lines"
    else:
        points1, known, seen = _moved(scene, raw, pair, points0, size1)
        for n, colour in enumerate(colours):
            _dot(view0, points0[n].numpy() * scale0, colour if seen[n] else UNSEEN, filled=bool(seen[n]))
            for view1 in views1 if seen[n] else ():
                _dot(view1, points1[n].numpy() * scale1, colour, filled=True)
        title += f"   found {int(seen.sum()) / max(1, int(known.sum())):.2f}"
    gap = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    views = np.concatenate([view0, *(part for view1 in views1 for part in (gap, view1))], axis=1)
    bar = np.full((BAR, views.shape[1], 3), 255, np.uint8)
    text = title.encode("ascii", "replace").decode()
    cv2.putText(bar, text, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([bar, views])


def _others(scene: Scene, modalities: Path, i: int) -> dict[str, np.ndarray]:
    """Return the images of other sensors that an index brings of one of its images, by modality."""
    found = {}
    for folder in sorted(modalities.iterdir()) if modalities.is_dir() else ():
        with Shard(folder / f"{scene.name}.h5") as shard:
            if (name := scene.image_id(i)) in shard:
                found[folder.name] = shard.image(name)
    return found


def _moved(
    scene: Scene, raw: Path, pair: int, points0: torch.Tensor, size1: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (N, 2) places in view 1, (N,) whether they are known and (N,) whether view 1 shows the same there."""
    if scene.H_0to1 is not None:
        points1 = warp_homography(torch.from_numpy(scene.H_0to1[pair]), points0)
        return points1, torch.ones(len(points0), dtype=torch.bool), inside(points1, size1)
    i, j = (int(n) for n in scene.pairs[pair])
    depth0, depth1 = (torch.from_numpy(read_depth(raw / scene.depth[n])).double()[None] for n in (i, j))
    K0, K1 = torch.from_numpy(scene.K[i]), torch.from_numpy(scene.K[j])
    z0 = sample_depth(depth0, points0[None])
    there, z1 = warp_points(points0[None], z0, K0, K1, motion(scene, i, j))
    shown = sample_depth(depth1, there)
    return there[0], z0[0].isfinite(), ((shown - z1).abs() <= TOLERANCE * shown)[0]


def _draw_lines(
    scene: Scene,
    pair: tuple[int, int],
    points0: torch.Tensor,
    view0: np.ndarray,
    view1: np.ndarray,
    scales: tuple[float, float],
) -> None:
    i, j = pair
    F_0to1 = fundamental(motion(scene, i, j), torch.from_numpy(scene.K[i]), torch.from_numpy(scene.K[j]))
    width = view1.shape[1] / scales[1]
    size0 = (int(view0.shape[1] / scales[0]), int(view0.shape[0] / scales[0]))
    lines = (homogeneous(points0) @ F_0to1.mT).numpy()
    for point, (a, b, c), colour in zip(points0.numpy(), lines, _colours(points0.numpy(), size0), strict=True):
        _dot(view0, point * scales[0], colour, filled=True)
        if abs(b) > 1e-9 * abs(a):
            ends = [(x * scales[1], -(a * x + c) / b * scales[1]) for x in (0.0, width)]
        else:
            ends = [(-c / a * scales[1], y) for y in (0.0, float(view1.shape[0]))]
        start, end = ((int(np.clip(x, -1e5, 1e5)), int(np.clip(y, -1e5, 1e5))) for x, y in ends)
        cv2.line(view1, start, end, colour, 1, cv2.LINE_AA)


def _shrunk(image: np.ndarray) -> np.ndarray:
    width = max(1, round(image.shape[1] * HEIGHT / image.shape[0]))
    return cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_AREA)


def _colours(points: np.ndarray, size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Return a colour for each point: hue from left to right, dark to bright from top to bottom."""
    hue = (points[:, 0] / size[0] * 165).astype(np.uint8)
    value = (130 + points[:, 1] / size[1] * 125).astype(np.uint8)
    hsv = np.stack([hue, np.full_like(hue, 235), value], -1)[None]
    return [(int(r), int(g), int(b)) for r, g, b in cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]]


def _dot(view: np.ndarray, point: np.ndarray, colour: tuple[int, int, int], *, filled: bool) -> None:
    centre = (round(float(point[0])), round(float(point[1])))
    cv2.circle(view, centre, 4 if filled else 3, colour, -1 if filled else 1, cv2.LINE_AA)
