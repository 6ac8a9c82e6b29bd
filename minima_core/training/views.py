"""Two views of one place in two modalities, drawn anew for every step, with the exact way from one to the other.

The two sides of a pair are one picture, seen through two warps that are drawn anew for every pair, so that pictures are
all that a data set must bring; or, where it knows depth and poses, two pictures from two cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import cv2
import numpy as np
import torch
from pydantic import Field
from torch.nn import functional as F

from minima_core.config import Section
from minima_core.data.pairs import PairSource, motion
from minima_core.errors import DataError
from minima_core.geometry.coords import scaling
from minima_core.geometry.homography import warp_homography
from minima_core.geometry.project import warp_points
from minima_core.random import rng
from minima_core.training.appearance import redraw_tones
from minima_core.types import RGB

HIDDEN = 0.05  # a point is hidden where the other view's depth differs by more than this share of its own


class Views(Section):
    """How the views of a step are drawn."""

    batch: Annotated[int, Field(gt=0)]  # pairs
    view: tuple[int, int]  # width and height of the views that are cut out of a picture; multiples of 32
    keypoints: tuple[int, int]  # of a view, at most: each step draws a number from here to there
    rgb_share: Annotated[float, Field(ge=0, le=1)]  # of pairs whose sides are both photographs
    any_share: Annotated[float, Field(ge=0, le=1)]  # of pairs of which neither side need be one
    parallax_share: Annotated[float, Field(ge=0, le=1)]  # of pairs that two cameras took, where pictures have depth
    tone_share: Annotated[float, Field(ge=0, le=1)]  # of sides in a modality whose tones are redrawn on top of it
    scale: tuple[float, float]  # side of a view as a share of the picture's
    rotation: Annotated[float, Field(ge=0, le=180)]  # degrees, either way
    perspective: Annotated[float, Field(ge=0, lt=0.5)]  # shift of each corner as a share of half the view's side


@dataclass(frozen=True)
class Stereo:
    """Two pictures of an album that two cameras took of one place.

    Attributes:
        pictures: their numbers.
        K: (3, 3) float64 of each.
        T_0to1: (4, 4) float64, the motion from the first camera to the second.
    """

    pictures: tuple[int, int]
    K: tuple[torch.Tensor, torch.Tensor]
    T_0to1: torch.Tensor

    def swapped(self) -> Stereo:
        """Return the pair the other way round."""
        return Stereo(self.pictures[::-1], self.K[::-1], torch.linalg.inv(self.T_0to1))


class Album:
    """All pictures of some sources, numbered, each in RGB and every modality that any source has.

    They are read when a step asks for them, so that their number costs no memory.

    Attributes:
        size: width and height of every picture.
        there: modality -> (N,) bool; an engine may have left a picture out.
        stereo: pairs of pictures that depth and poses relate.

    Args:
        sources: of the pictures, which must be of one size.

    Raises:
        DataError: if there is no picture, or sizes differ.
    """

    def __init__(self, sources: Sequence[PairSource]) -> None:
        self._images = [
            (source, scene, i) for source in sources for scene in source.scenes for i in range(len(scene.image))
        ]
        sizes = {(int(scene.size[i][0]), int(scene.size[i][1])) for _, scene, i in self._images}
        if len(sizes) != 1:
            raise DataError(f"pictures of one size are needed, there are {sorted(sizes)}; set `size` of the data set")
        (self.size,) = sizes
        self.there = {
            name: np.array(
                [name in (RGB, *source.names) and source.has(scene, i, name) for source, scene, i in self._images]
            )
            for name in dict.fromkeys([RGB, *(name for source in sources for name in source.names)])
        }
        self.stereo = _stereo(sources)

    def __len__(self) -> int:
        """Return how many photographs there are."""
        return len(self._images)

    def pictures(self, wanted: Sequence[tuple[int, str]]) -> torch.Tensor:
        """Return (N, 3, H, W) uint8, the pictures of these numbers and modalities; each is read once.

        Raises:
            DataError: if one cannot be read.
        """
        read = {}
        for n, modality in dict.fromkeys(wanted):
            source, scene, i = self._images[n]
            read[n, modality] = torch.from_numpy(source.image(scene, i, modality))
        return torch.stack([read[one] for one in wanted]).permute(0, 3, 1, 2)

    def depth(self, n: int) -> torch.Tensor:
        """Return the (H, W) float32 depth of a picture of a stereo pair, 0 where unknown.

        Raises:
            DataError: if it cannot be read.
        """
        source, scene, i = self._images[n]
        depth = source.depth(scene, i)
        assert depth is not None, "pictures without depth are in no stereo pair"
        return torch.from_numpy(depth)


def _stereo(sources: Sequence[PairSource]) -> list[Stereo]:
    """Return the pairs of the sources that depth and poses relate, by the numbers of their images among all."""
    found, first = [], 0
    for source in sources:
        for scene in source.scenes:
            if scene.H_0to1 is None:
                K = torch.from_numpy(scene.K)
                found += [
                    Stereo((first + i, first + j), (K[i], K[j]), motion(scene, i, j))
                    for i, j in scene.pairs.tolist()
                    if scene.depth[i] and scene.depth[j]
                ]
            first += len(scene.image)
    return found


@dataclass(frozen=True)
class Batch:
    """Views of one step: sides 0 of all pairs, then sides 1.

    Attributes:
        views: (2B, 3, H, W) float32 in [0, 1], each in its modality.
        twins: (2B, 3, H, W), the same views of the photographs.
        inside: (2B, 1, H, W) bool, where the view lies on the picture.
        H_view: (2B, 3, 3) float64, pixels of views to pixels of pictures.
        depth: (2B, H, W) float32, of the pictures' cameras at the views' pixels, NaN where unknown; 1 for both views of
            one picture, whose cameras are one.
        K: (2B, 3, 3) float64, of the pictures.
        T_0to1: (B, 4, 4) float64.
        keypoints: how many of each view LightGlue sees, at most.
    """

    views: torch.Tensor
    twins: torch.Tensor
    inside: torch.Tensor
    H_view: torch.Tensor
    depth: torch.Tensor
    K: torch.Tensor
    T_0to1: torch.Tensor
    keypoints: int

    def of_pairs(self, first: int, count: int) -> Batch:
        """Return the batch of these pairs alone."""
        pairs, some = len(self.T_0to1), slice(first, first + count)

        def of(views: torch.Tensor) -> Any:
            return views.reshape(2, pairs, *views.shape[1:])[:, some].flatten(0, 1)  # no copy of one pair, nor of all

        of_views = {name: of(getattr(self, name)) for name in ("views", "twins", "inside", "H_view", "depth", "K")}
        return replace(self, **of_views, T_0to1=self.T_0to1[some])

    def warp(self, points: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where pixels of one side's views lie in the other's, and which the other sees.

        Args:
            points: (B, N, 2) whole pixels.
            side: of the points.

        Returns:
            (B, N, 2) pixels, NaN where unknown and infinite where behind the camera; and (B, N) bool.
        """
        pairs = len(self.T_0to1)
        here, other = (slice(0, pairs), slice(pairs, None))[:: 1 if side == 0 else -1]
        T = self.T_0to1 if side == 0 else torch.linalg.inv(self.T_0to1)
        depth = _at(self.depth[here], points).double()
        on_picture = warp_homography(self.H_view[here], points.double())
        on_other, z = warp_points(on_picture, depth, self.K[here], self.K[other], T)
        places = warp_homography(torch.linalg.inv(self.H_view[other]), on_other)
        behind = depth.isfinite() & places.isnan().any(-1)
        places = places.masked_fill(behind[..., None], torch.inf).float()
        near = places.nan_to_num(nan=-1e4).clamp(-1e4, 1e4)
        facing = (_at(self.depth[other], near) / z - 1).abs() < HIDDEN
        return places, facing & _inside(near, self.inside[other])


def draw(
    album: Album,
    params: Views,
    seed: int,
    step: int | str,
    *,
    device: torch.device,
    pairs: Sequence[int] | None = None,
) -> Batch:
    """Return the pairs of a step, a function of the album, the settings, ``seed`` and ``step`` alone.

    All of them, or those of some numbers; what a pair is does not depend on which others are asked for.
    """
    random = rng(seed, "joint", step)
    shown = [[int(n)] * 2 for n in random.integers(len(album), size=params.batch)]
    stereo = _draw_stereo(album, params, rng(seed, "parallax", step))
    for b, pair in enumerate(stereo):
        if pair is not None:
            shown[b] = list(pair.pictures)
    modalities = [[RGB, RGB] for _ in range(params.batch)]
    redrawn = np.zeros((2, params.batch), bool)
    for b in range(params.batch):
        kind = random.random()
        if kind < params.rgb_share:
            continue
        in_both = kind < params.rgb_share + params.any_share
        for side in (0, 1) if in_both else (int(random.integers(2)),):
            others = [name for name, has in album.there.items() if has[shown[b][side]]]
            name = others[int(random.integers(len(others)))]
            modalities[b][side] = name
            # a photograph in other tones counts as one modality more
            redrawn[side, b] = name == RGB or random.random() < params.tone_share
    width, height = album.size
    placed = np.stack(
        [[_placement(random, (width, height), params) for _ in range(params.batch)] for _ in range(2)]
    )  # view to picture
    for b, pair in enumerate(stereo):
        if pair is not None:  # two cameras differ enough
            placed[:, b] = scaling((width / params.view[0], height / params.view[1])).numpy()  # all of it is shown
    mine = np.arange(params.batch) if pairs is None else np.array(pairs)
    both = np.concatenate([mine, mine + params.batch])  # numbers of their views, sides 0 first
    H_view = torch.from_numpy(placed.reshape(-1, 3, 3)[both]).to(device)
    there = warp_homography(H_view, _pixels(params.view, H_view))
    size = torch.tensor([width, height], device=device)
    inside = ((there >= 0) & (there <= size - 1)).all(-1).reshape(-1, 1, *params.view[::-1])
    grid = (2 * (there + 0.5) / size - 1).float().reshape(-1, *params.view[::-1], 2)
    numbers = [shown[b][side] for side in (0, 1) for b in mine]
    names = [modalities[b][side] for side in (0, 1) for b in mine]
    pictures = album.pictures([*((n, RGB) for n in numbers), *zip(numbers, names, strict=True)]).to(device)
    twins, views = (
        F.grid_sample(some.float() / 255, grid, mode="bilinear", align_corners=False) for some in pictures.chunk(2)
    )
    toned = torch.from_numpy(redrawn.reshape(-1)[both]).to(device)
    views = torch.where(toned[:, None, None, None], redraw_tones(views, both, 2 * params.batch, random), views)
    keypoints = int(random.integers(params.keypoints[0], params.keypoints[1] + 1))
    return Batch(views, twins, inside, H_view, *_cameras(album, [stereo[b] for b in mine], grid), keypoints)


def _draw_stereo(album: Album, params: Views, random: np.random.Generator) -> list[Stereo | None]:
    """Return for each pair of a step the two cameras that it comes from, or None for one picture."""
    drawn: list[Stereo | None] = []
    for _ in range(params.batch):
        taken, swap = random.random() < params.parallax_share, random.random() < 0.5
        pair = album.stereo[int(random.integers(len(album.stereo)))] if taken and album.stereo else None
        drawn.append(pair.swapped() if pair is not None and swap else pair)
    return drawn


def _cameras(
    album: Album, stereo: Sequence[Stereo | None], grid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ``depth``, ``K`` and ``T_0to1`` of a batch whose (2B, H, W, 2) pixels lie at ``grid`` of the pictures."""
    pairs, device = len(stereo), grid.device
    depth = torch.ones_like(grid[..., 0])
    K = torch.eye(3, dtype=torch.float64, device=device).repeat(2 * pairs, 1, 1)
    T_0to1 = torch.eye(4, dtype=torch.float64, device=device).repeat(pairs, 1, 1)
    for b, pair in enumerate(stereo):
        if pair is not None:
            T_0to1[b] = pair.T_0to1
            for side, k in enumerate((b, b + pairs)):
                K[k] = pair.K[side]
                known = album.depth(pair.pictures[side]).to(device)[None, None]
                found = F.grid_sample(known, grid[k : k + 1], mode="nearest", align_corners=False)[0, 0]
                depth[k] = torch.where(found > 0, found, torch.nan)
    return depth, K, T_0to1


def _placement(random: np.random.Generator, size: tuple[int, int], params: Views) -> np.ndarray:
    """Return a (3, 3) homography from the pixels of a view to those of a picture of ``size``."""
    width, height = params.view
    share = np.exp(random.uniform(*np.log(params.scale)))
    factor = share * min(size[0] / width, size[1] / height)
    angle = np.deg2rad(random.uniform(-params.rotation, params.rotation))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    half = np.array([width, height]) / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    moved = corners * (1 + random.uniform(-params.perspective, params.perspective, (4, 2)))
    slack = np.maximum(np.array(size) / 2 - factor * half, 0.15 * np.array(size))
    centre = np.array(size) / 2 + random.uniform(-1, 1, 2) * slack
    there = factor * moved @ turn.T + centre - 0.5
    return cv2.getPerspectiveTransform((corners + half - 0.5).astype(np.float32), there.astype(np.float32))


def _pixels(view: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
    """Return the (N, H W, 2) pixels of N views of a size, N and type those of (N, 3, 3) ``like``."""
    ys, xs = torch.meshgrid(torch.arange(view[1]), torch.arange(view[0]), indexing="ij")
    return torch.stack([xs, ys], -1).reshape(1, -1, 2).to(like).expand(len(like), -1, -1)


def _inside(points: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Say of (B, P, 2) pixels whether they lie on their (B, 1, H, W) view and there on the picture."""
    height, width = inside.shape[-2:]
    x, y = points.round().unbind(-1)
    on = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    return on & _at(inside[:, 0], points)


def _at(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return (B, P), the (B, H, W) values at the whole pixels nearest to (B, P, 2) ones."""
    height, width = values.shape[-2:]
    x, y = points.round().long().unbind(-1)
    return values.flatten(1).gather(1, y.clamp(0, height - 1) * width + x.clamp(0, width - 1))
