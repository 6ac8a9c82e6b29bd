"""XFeat and its LightGlue trained together, on pictures of one place in two modalities.

A modality made from a photograph lies on its pixels, so the extractor has a teacher that costs nothing: itself before
the training, looking at the photograph. It learns to find in every modality the keypoints that the teacher finds in
RGB, and to describe them as the teacher would, while a contrast between the two sides of a pair keeps descriptions
apart (InfoNCE, as XFeat's own training, arXiv 2404.19174 section 3.3). RGB pictures are among what it sees, so it
stays what it was for them. LightGlue is trained on what the extractor finds at the moment, with the loss of
``matchers.lightglue.loss``, whose gradient reaches the descriptors.

The two sides of a pair are one picture, seen through two warps that are drawn anew for every pair, so that pictures are
all that a data set must bring; or, where it knows depth and poses, two pictures from two cameras.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from minima_core.config import Section
from minima_core.data.pairs import PairSource, motion
from minima_core.errors import DataError
from minima_core.geometry.cells import CELL
from minima_core.geometry.coords import scaling
from minima_core.geometry.homography import warp_homography
from minima_core.geometry.project import warp_points
from minima_core.matchers.lightglue.loss import deep_loss
from minima_core.matchers.lightglue.matcher import LightGlue
from minima_core.matchers.lightglue.network import Points, layers
from minima_core.progress import track
from minima_core.random import rng
from minima_core.supervision.reliability import reliability_loss
from minima_core.supervision.sparse import matches_from_places
from minima_core.tracking import Tracker
from minima_core.training import checkpoint
from minima_core.training.appearance import redraw_tones
from minima_core.training.checkpoint import Progress
from minima_core.training.optim import lr_factor
from minima_core.training.steps import Fitted, descend, deterministic, keep_best, load_best, one_ahead, resume, set_lr
from minima_core.types import RGB

NMS, SURE = 5, 0.05  # XFeat's own: window and least value of a keypoint
NEAR = 8.0  # pixels within which two points are too alike to be told apart
HIDDEN = 0.05  # a point is hidden where the other view's depth differs by more than this share of its own


class JointTraining(Section):
    """Settings, ``joint_training`` in params.yaml."""

    steps: Annotated[int, Field(ge=0)]
    batch: Annotated[int, Field(gt=0)]  # pairs
    view: tuple[int, int]  # width and height of the views that are cut out of a picture; multiples of 32
    keypoints: tuple[int, int]  # of a view, for LightGlue: each step draws a number from here to there
    points: Annotated[int, Field(gt=1)]  # of a view, for the contrast of descriptors
    lr_extractor: Annotated[float, Field(gt=0)]
    lr_matcher: Annotated[float, Field(gt=0)]
    warmup: Annotated[int, Field(ge=0)]  # steps
    decay_from: Annotated[float, Field(ge=0, le=1)]  # share of the steps after which the rates fall
    decay_to: Annotated[float, Field(gt=0, le=1)]  # factor of the rates at the end
    clip: Annotated[float, Field(gt=0)]  # norm of the gradient
    rgb_share: Annotated[float, Field(ge=0, le=1)]  # of pairs whose sides are both photographs
    any_share: Annotated[float, Field(ge=0, le=1)]  # of pairs of which neither side need be one
    parallax_share: Annotated[float, Field(ge=0, le=1)]  # of pairs that two cameras took, where pictures have depth
    tone_share: Annotated[float, Field(ge=0, le=1)]  # of sides in a modality whose tones are redrawn on top of it
    scale: tuple[float, float]  # side of a view as a share of the picture's
    rotation: Annotated[float, Field(ge=0, le=180)]  # degrees, either way
    perspective: Annotated[float, Field(ge=0, lt=0.5)]  # shift of each corner as a share of half the view's side
    temperature: Annotated[float, Field(gt=0)]  # of the contrast
    weights: dict[str, float]  # of the losses: keypoint, anchor, contrast, reliability, matcher
    validation_pairs: Annotated[int, Field(gt=0)]
    validate_every: Annotated[int, Field(gt=0)]  # steps
    checkpoint_every: Annotated[int, Field(gt=0)]  # steps
    log_every: Annotated[int, Field(gt=0)]  # steps
    max_skipped: Annotated[int, Field(ge=0)]  # steps that may be lost to losses that are not finite
    precision: Literal["float32", "bfloat16"]  # of the networks' forward passes; weights and losses are float32
    threads: Annotated[int, Field(gt=0)]  # of torch; part of the result
    learned_share: Annotated[float, Field(gt=0, le=1)]  # of the way from the teacher's weights to the trained ones


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


def draw(album: Album, params: JointTraining, seed: int, step: int | str, *, device: torch.device) -> Batch:
    """Return the pairs of a step, a function of the album, the settings, ``seed`` and ``step`` alone."""
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
        both = kind < params.rgb_share + params.any_share
        for side in (0, 1) if both else (int(random.integers(2)),):
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
    H_view = torch.from_numpy(placed.reshape(-1, 3, 3)).to(device)
    there = warp_homography(H_view, _pixels(params.view, H_view))
    size = torch.tensor([width, height], device=device)
    inside = ((there >= 0) & (there <= size - 1)).all(-1).reshape(-1, 1, *params.view[::-1])
    grid = (2 * (there + 0.5) / size - 1).float().reshape(-1, *params.view[::-1], 2)
    numbers = [pair[side] for side in (0, 1) for pair in shown]
    names = [pair[side] for side in (0, 1) for pair in modalities]
    pictures = album.pictures([*((n, RGB) for n in numbers), *zip(numbers, names, strict=True)]).to(device)
    twins, views = (
        F.grid_sample(some.float() / 255, grid, mode="bilinear", align_corners=False) for some in pictures.chunk(2)
    )
    toned = torch.from_numpy(redrawn.reshape(-1)).to(device)
    views = torch.where(toned[:, None, None, None], redraw_tones(views, random), views)
    keypoints = int(random.integers(params.keypoints[0], params.keypoints[1] + 1))
    return Batch(views, twins, inside, H_view, *_cameras(album, stereo, grid), keypoints)


def _draw_stereo(album: Album, params: JointTraining, random: np.random.Generator) -> list[Stereo | None]:
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


def _placement(random: np.random.Generator, size: tuple[int, int], params: JointTraining) -> np.ndarray:
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


class Joint(nn.Module):
    """The student, a LightGlue matcher on XFeat, beside the teacher: an extractor that knows photographs."""

    def __init__(self, matcher: LightGlue, params: JointTraining, teacher: LightGlue | None = None) -> None:
        super().__init__()
        if matcher.params.extractor != "xfeat":
            raise DataError(f"joint training is for the extractor xfeat, not {matcher.params.extractor}")
        self.matcher, self.params = matcher, params
        self.teacher = copy.deepcopy((teacher or matcher).extractor).freeze()
        matcher.extractor.net.requires_grad_(True)

    def groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's parameter groups, ``initial_lr`` of each is its rate at factor 1."""
        p = self.params
        xfeat: Any = self.matcher.extractor.net  # its parts have no types
        pairs = ((xfeat.net, p.lr_extractor), (self.matcher.network, p.lr_matcher))
        return [{"params": [w for w in part.parameters() if w.requires_grad], "initial_lr": lr} for part, lr in pairs]

    def loss(self, batch: Batch, random: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the weighted loss and its parts."""
        pairs, size = len(batch.T_0to1), batch.views.shape[-2:]
        student: Any = self.matcher.extractor.net
        teacher: Any = self.teacher.net
        with self._precision(batch.views.device):
            dense, logits, reliability = (some.float() for some in student.net(batch.views))
            with torch.no_grad():
                dense_rgb, logits_rgb, _ = (some.float() for some in teacher.net(batch.twins))
        dense, dense_rgb = F.normalize(dense, dim=1), F.normalize(dense_rgb, dim=1)
        seen = F.avg_pool2d(batch.inside.float(), CELL)[:, 0] == 1
        parts = {"keypoint": _keypoint_loss(logits, logits_rgb, seen)}
        parts["anchor"] = (1 - (dense * dense_rgb).sum(1))[seen].mean()

        points0 = self._likely(logits_rgb[:pairs], batch.inside[:pairs], random)
        points1, seen1 = batch.warp(points0, 0)
        points1 = points1.nan_to_num(nan=-1e4).clamp(-1e4, 1e4)
        desc0 = self._describe(dense[:pairs], points0, size)
        desc1 = self._describe(dense[pairs:], points1, size)
        parts["contrast"], right = _contrast(desc0, desc1, points1, seen1, self.params.temperature)
        trust0, trust1 = (
            student._bilinear(some, points, *size)[..., 0]
            for some, points in ((reliability[:pairs], points0), (reliability[pairs:], points1))
        )
        parts["reliability"] = (_trust_loss(trust0, right, seen1) + _trust_loss(trust1, right, seen1)) / 2
        matched, more = self._matcher_loss(batch, dense, logits, reliability)
        parts["matcher"] = matched
        total = torch.stack([self.params.weights[name] * value for name, value in parts.items()]).sum()
        return total, {name: float(value.detach()) for name, value in parts.items()} | more

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        half = self.params.precision == "bfloat16"
        return torch.autocast(device.type, torch.bfloat16, enabled=half)

    def _likely(self, logits: torch.Tensor, inside: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """Return (B, P, 2) pixels inside the views, drawn among those that the teacher thinks keypoints."""
        heat = self.teacher.net._get_kpts_heatmap(logits)  # type: ignore[operator]
        luck = torch.rand(heat.shape, generator=random).to(heat.device)
        return _places((heat + 1e-4) * inside * luck, self.params.points)[0]

    def _describe(self, dense: torch.Tensor, points: torch.Tensor, size: torch.Size) -> torch.Tensor:
        found = self.matcher.extractor.net.interpolator(dense, points, *size)  # type: ignore[operator]
        return F.normalize(found, dim=-1)

    def _matcher_loss(
        self, batch: Batch, dense: torch.Tensor, logits: torch.Tensor, reliability: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return LightGlue's loss on the keypoints of both sides as inference would find them."""
        pairs, size = len(batch.T_0to1), batch.views.shape[-2:]
        with torch.no_grad():
            heat = self.matcher.extractor.net._get_kpts_heatmap(logits)  # type: ignore[operator]
            rows = F.max_pool2d(heat, (1, NMS), 1, (0, NMS // 2))  # one way, then the other: less work than a square
            peak = (heat == F.max_pool2d(rows, (NMS, 1), 1, (NMS // 2, 0))) & (heat > SURE)
            trust = F.interpolate(reliability, size=heat.shape[-2:], mode="bilinear", align_corners=False)
            kpts, scores = _places(heat * trust * peak * batch.inside, batch.keypoints)
        # one place more, always padding: where any place is, LightGlue's masked attention needs one a side
        kpts, mask = F.pad(kpts, (0, 0, 0, 1)), F.pad(scores > 0, (0, 1))
        desc = self._describe(dense, kpts, size)
        shape = kpts.new_tensor([size[1], size[0]]).expand(len(kpts), 2)
        sides = [Points(kpts[s], desc[s], shape[s], mask[s]) for s in (slice(0, pairs), slice(pairs, None))]
        targets0, targets1 = matches_from_places(
            sides[0].kpts,
            sides[1].kpts,
            sides[0].mask,
            sides[1].mask,
            warped0=batch.warp(sides[0].kpts, 0)[0],
            warped1=batch.warp(sides[1].kpts, 1)[0],
            size=(size[1], size[0]),
        )
        net = self.matcher.network
        masks = (sides[0].mask, sides[1].mask)
        with self._precision(desc.device):
            total, last, (decided0, _) = deep_loss(net, layers(net, *sides), masks, targets0, targets1)
        true = targets0 >= 0
        right = (true & (decided0 == targets0)).sum()
        more = {
            "recall": float(right / true.sum().clamp(min=1)),
            "repeated": float(true.sum() / sides[0].mask.sum().clamp(min=1)),
            "nll": float(last["nll"].detach().mean()),
        }
        return total.mean(), more


def _places(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the (N, count, 2) pixels and (N, count) values of the largest of (N, 1, H, W) values."""
    best, where = values.flatten(1).topk(count, dim=1)
    return torch.stack([where % values.shape[3], where // values.shape[3]], -1).to(values.dtype), best


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


def _keypoint_loss(logits: torch.Tensor, teacher: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Return the divergence from the teacher's 65-way choice a cell; cells where it sees a keypoint count more."""
    target = F.softmax(teacher, 1)
    divergence = (target * (F.log_softmax(teacher, 1) - F.log_softmax(logits, 1))).sum(1)
    weight = (1.1 - target[:, 64]) * seen
    return (weight * divergence).sum() / weight.sum().clamp(min=1e-6)


def _contrast(
    desc0: torch.Tensor, desc1: torch.Tensor, points1: torch.Tensor, seen: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of telling each point's partner from the others, both ways, and (B, P) whether it was told.

    Points that lie within ``NEAR`` pixels of each other are no negatives of each other.
    """
    sim = desc0 @ desc1.mT / temperature
    itself = torch.eye(sim.shape[1], dtype=torch.bool, device=sim.device)
    near = (torch.cdist(points1, points1) < NEAR) & ~itself
    sim = sim.masked_fill(near | ~(seen[:, :, None] & seen[:, None, :] | itself), -1e4)
    target = torch.arange(sim.shape[1], device=sim.device).expand(len(sim), -1)
    each = (F.cross_entropy(sim.mT, target, reduction="none") + F.cross_entropy(sim, target, reduction="none")) / 2
    with torch.no_grad():
        right = (sim.argmax(1) == target) & (sim.argmax(2) == target)
    return (each * seen).sum() / seen.sum().clamp(min=1), right


def _trust_loss(trust: torch.Tensor, right: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Return how far the (B, P) reliabilities are from saying which points were told from the others."""
    each = reliability_loss(trust, right.float())
    return (each * seen).sum() / seen.sum().clamp(min=1)


def fit_joint(
    matcher: LightGlue,
    album: Album,
    held_out: Album,
    params: JointTraining,
    *,
    seed: int,
    tracker: Tracker,
    scratch: Path,
    teacher: LightGlue | None = None,
) -> Fitted:
    """Train ``matcher`` and its extractor in place and leave in it the weights with the lowest validation loss.

    Args:
        matcher: on its device, with the weights to start from.
        album: pictures to train on.
        held_out: pictures to validate on.
        params: the settings.
        seed: of everything drawn.
        tracker: gets the curves.
        scratch: folder of the checkpoints; one that belongs to these settings and pictures alone.
        teacher: whose extractor is the teacher; the matcher's own, as it is at the start, by default.

    Raises:
        DataError: if the extractor is not XFeat.
        TrainingError: if too many steps are not finite, or a validation loss is not.
    """
    device = next(matcher.parameters()).device
    joint = Joint(matcher, params, teacher).to(device)
    with deterministic(params.threads):
        optimiser = torch.optim.Adam(joint.groups(), lr=params.lr_matcher)
        progress = resume(scratch, optimiser, matcher.load_state_dict) or Progress()
        if not progress.step:
            _validate(joint, held_out, params, seed, progress, tracker, scratch)
        drawn = partial(draw, album, params, seed, device=device)
        batches = one_ahead(drawn, range(progress.step, params.steps))
        for batch in track(batches, "training", total=params.steps, done=progress.step):
            _step(joint, optimiser, batch, params, seed, progress, tracker)
            if progress.step % params.validate_every == 0 or progress.step == params.steps:
                _validate(joint, held_out, params, seed, progress, tracker, scratch)
            if progress.step % params.checkpoint_every == 0 or progress.step == params.steps:
                checkpoint.save(scratch, progress, matcher.state_dict(), optimiser)
    load_best(scratch, matcher)
    matcher.extractor.freeze()
    return Fitted.of(progress)


def _generator(seed: int, step: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng(seed, "points", step).integers(2**62)))


def _step(
    joint: Joint,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    params: JointTraining,
    seed: int,
    progress: Progress,
    tracker: Tracker,
) -> None:
    """Do one step, or count it as skipped where its loss or gradient is not finite."""
    factor = lr_factor(
        progress.step,
        steps=params.steps,
        warmup=params.warmup,
        decay_from=params.decay_from,
        decay_to=params.decay_to,
    )
    set_lr(optimiser, factor)
    optimiser.zero_grad(set_to_none=True)
    total, parts = joint.loss(batch, _generator(seed, progress.step))
    learning = [weight for group in optimiser.param_groups for weight in group["params"]]
    remedy = "lower the rates or look at the pictures"
    norm = descend(
        optimiser, total, learning, progress, clip=params.clip, max_skipped=params.max_skipped, remedy=remedy
    )
    if norm is not None and progress.step % params.log_every == 0:
        values = {"train/loss": float(total.detach()), "train/norm": norm}
        values |= {f"train/{name}": value for name, value in parts.items()}
        progress.log(values, progress.step)
        tracker.metrics(values, progress.step)


@torch.no_grad()
def _validate(
    joint: Joint,
    held_out: Album,
    params: JointTraining,
    seed: int,
    progress: Progress,
    tracker: Tracker,
    scratch: Path,
) -> None:
    """Log the losses over fixed pairs of held-out pictures; the weights with the lowest matcher loss are kept."""
    device = next(joint.parameters()).device
    sums: dict[str, float] = {}
    rounds = -(-params.validation_pairs // params.batch)
    for n in range(rounds):
        batch = draw(held_out, params, seed, f"validation {n}", device=device)
        total, parts = joint.loss(batch, _generator(seed, f"validation {n}"))
        for name, value in {"loss": float(total), **parts}.items():
            sums[f"val/{name}"] = sums.get(f"val/{name}", 0.0) + value / rounds
    remedy = "lower the rates or look at the pictures"
    keep_best(scratch, joint.matcher, sums["val/matcher"], progress, remedy=remedy, leads=True)
    progress.log(sums, progress.step)
    tracker.metrics(sums, progress.step)
