"""Training samples: cached features of two images and what is a match between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import kornia
import numpy as np
import torch

from minima_core.config import digest
from minima_core.data.features import ImageFeatures, build
from minima_core.data.index import Scene
from minima_core.data.pairs import PairSource, motion
from minima_core.data.sampling import Item
from minima_core.errors import DataError, redo
from minima_core.geometry.coords import rescale_K, scaling
from minima_core.io.images import to_tensor
from minima_core.io.weights import state_digest
from minima_core.matchers.base import resize, textureless
from minima_core.matchers.lightglue.extractors import Extractor, Features
from minima_core.matchers.lightglue.network import Points, stack
from minima_core.provenance import code_digest
from minima_core.supervision.sparse import Targets, matches_from_depth, matches_from_homography
from minima_core.types import IGNORE

# what decides the features of an image
CODE = (
    *("data/features.py", "data/pairs.py", "data/parts.py", "data/shards.py", "geometry", "io"),
    *("matchers/base.py", "matchers/lightglue/extractors.py"),
)


@dataclass(frozen=True)
class Sample:
    """One pair: features of both images and the labels of their keypoints."""

    features0: Features
    features1: Features
    targets: Targets


@dataclass(frozen=True)
class Batch:
    """Padded pairs.

    Attributes:
        points0: keypoints of images 0.
        points1: keypoints of images 1.
        matches0: (B, M) int64 labels; padding is IGNORE.
        matches1: (B, N) int64 labels.
    """

    points0: Points
    points1: Points
    matches0: torch.Tensor
    matches1: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on ``device``."""
        return Batch(
            self.points0.to(device),
            self.points1.to(device),
            self.matches0.to(device, non_blocking=True),
            self.matches1.to(device, non_blocking=True),
        )


class CachedPairs:
    """Samples of a pair source; satisfies ``minima_core.matchers.base.TrainingData``."""

    def __init__(
        self, pairs: PairSource, extractor: Extractor, *, long_side: int, max_keypoints: int, cache: Path, workers: int
    ) -> None:
        self.pairs = pairs
        device = next(extractor.parameters()).device

        def extract(image: np.ndarray) -> ImageFeatures:
            small, scale = resize(to_tensor(image).to(device), long_side, extractor.SIZE_MULTIPLE)
            return _kept(extractor, small, scale, max_keypoints)

        settings = {
            "weights": state_digest(extractor.state_dict()),
            "extractor": type(extractor).__name__,
            "subpixel": extractor.subpixel,
            "long_side": long_side,
            "max_keypoints": max_keypoints,
            "code": code_digest(*CODE),
            "libraries": [torch.__version__, kornia.__version__],
        }
        self.cache = build(pairs, cache, extract, key=digest(settings), workers=workers)
        self.key = digest([self.cache.key, pairs.digest()])

    def sample(self, item: Item) -> Sample:
        """Return the features of a pair in the item's modalities, and its labels in pixels of the resized images."""
        scene, pair = self.pairs.locate(item.pair)
        i, j = (int(n) for n in scene.pairs[pair])
        found0 = self.cache.get(scene.name, item.modality0, i)
        found1 = self.cache.get(scene.name, item.modality1, j)
        return Sample(_features(found0), _features(found1), _targets(scene, pair, found0, found1))

    def collate(self, samples: list[Sample]) -> Batch:
        """Pad samples to one length."""
        points0, points1 = stack(([s.features0 for s in samples], [s.features1 for s in samples]))
        matches0 = torch.full(points0.mask.shape, IGNORE)
        matches1 = torch.full(points1.mask.shape, IGNORE)
        for b, sample in enumerate(samples):
            matches0[b, : len(sample.targets.matches0)] = sample.targets.matches0
            matches1[b, : len(sample.targets.matches1)] = sample.targets.matches1
        return Batch(points0, points1, matches0, matches1)

    def close(self) -> None:
        """Close the cached features and the pairs' shards."""
        self.cache.close()
        self.pairs.close()


def _kept(extractor: Extractor, image: torch.Tensor, scale: tuple[float, float], max_keypoints: int) -> ImageFeatures:
    found = extractor.extract(image, 0 if textureless(image) else max_keypoints)
    return ImageFeatures(
        kpts=found.kpts.cpu().numpy(),
        scores=found.scores.cpu().numpy(),
        desc=found.desc.half().cpu().numpy(),
        depth=np.full(len(found.scores), np.nan, np.float32),
        size=np.array(found.size),
        scale=np.array(scale),
    )


def _features(found: ImageFeatures) -> Features:
    return Features(
        torch.from_numpy(found.kpts),
        torch.from_numpy(found.scores),
        torch.from_numpy(found.desc).float(),
        (int(found.size[0]), int(found.size[1])),
    )


def _targets(scene: Scene, pair: int, found0: ImageFeatures, found1: ImageFeatures) -> Targets:
    """Return the labels of a pair, in pixels of its resized images."""
    i, j = (int(n) for n in scene.pairs[pair])
    kpts0, kpts1 = torch.from_numpy(found0.kpts), torch.from_numpy(found1.kpts)
    scale0, scale1 = ((float(f.scale[0]), float(f.scale[1])) for f in (found0, found1))
    size0, size1 = ((int(f.size[0]), int(f.size[1])) for f in (found0, found1))
    if scene.H_0to1 is not None:
        H_0to1 = scaling(scale1) @ torch.from_numpy(scene.H_0to1[pair]) @ torch.linalg.inv(scaling(scale0))
        return matches_from_homography(kpts0, kpts1, H_0to1=H_0to1, size0=size0, size1=size1)
    for n in (i, j):
        if not np.isfinite(scene.K[n]).all():
            raise DataError(f"{scene.image_id(n)} has no intrinsics; make the index again with {redo('index')}")
    return matches_from_depth(
        kpts0,
        kpts1,
        depth0=torch.from_numpy(found0.depth),
        depth1=torch.from_numpy(found1.depth),
        K0=rescale_K(torch.from_numpy(scene.K[i]), scale0),
        K1=rescale_K(torch.from_numpy(scene.K[j]), scale1),
        T_0to1=motion(scene, i, j),
        size0=size0,
        size1=size1,
    )
