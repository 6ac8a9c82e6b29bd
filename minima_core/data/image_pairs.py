"""Training samples for matchers that look at whole images: two squares, their depth and cameras, in one batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch.nn import functional as F

from minima_core.config import digest
from minima_core.data.augment import Moves, moved
from minima_core.data.pairs import PairSource
from minima_core.data.sampling import Item
from minima_core.errors import DataError, redo
from minima_core.geometry.coords import rescale_K, scaling
from minima_core.matchers.base import resize, stretch
from minima_core.provenance import code_digest
from minima_core.types import Pair, View

Fit = Literal["pad", "stretch"]
# what decides a sample
CODE = (
    "data/augment.py",
    "data/image_pairs.py",
    "data/pairs.py",
    "data/shards.py",
    "geometry",
    "io",
    "matchers/base.py",
)


@dataclass(frozen=True)
class ImageBatch:
    """Pairs of square images; all geometry is in pixels of these images.

    Attributes:
        image0: (B, 3, S, S) RGB float in [0, 1], black where padded.
        image1: likewise.
        mask0: (B, S, S) bool, image area that is not padding.
        mask1: likewise.
        depth0: (B, S, S) float32, 0 where unknown and in the padding.
        depth1: likewise.
        K0: (B, 3, 3) float32, the identity for planar pairs.
        K1: likewise.
        T_0to1: (B, 4, 4) float32, the identity for planar pairs.
        H_0to1: (B, 3, 3) float32, the identity for pairs that are not planar.
        planar: (B,) bool, the homography relates the pair; else depth and pose do.
        size0: (B, 2) int64 width and height of the image area, of the square where it was moved in it.
        size1: likewise.
    """

    image0: torch.Tensor
    image1: torch.Tensor
    mask0: torch.Tensor
    mask1: torch.Tensor
    depth0: torch.Tensor
    depth1: torch.Tensor
    K0: torch.Tensor
    K1: torch.Tensor
    T_0to1: torch.Tensor
    H_0to1: torch.Tensor
    planar: torch.Tensor
    size0: torch.Tensor
    size1: torch.Tensor

    def __len__(self) -> int:
        """Return how many pairs there are."""
        return len(self.planar)

    def to(self, device: torch.device) -> ImageBatch:
        """Return the same batch on ``device``."""
        return ImageBatch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))

    def swap(self) -> ImageBatch:
        """Return the pairs seen from the other side."""
        return ImageBatch(
            self.image1,
            self.image0,
            self.mask1,
            self.mask0,
            self.depth1,
            self.depth0,
            self.K1,
            self.K0,
            torch.linalg.inv(self.T_0to1),
            torch.linalg.inv(self.H_0to1),
            self.planar,
            self.size1,
            self.size0,
        )


class ImagePairs:
    """Samples of a pair source; satisfies ``minima_core.matchers.base.TrainingData``.

    Args:
        pairs: where pairs come from.
        side: width and height of a sample's images.
        fit: ``"pad"`` keeps the aspect and pads at the bottom and on the right, ``"stretch"`` fills the square.
        multiple: both sides of a padded image's area are floored to a multiple of this.
    """

    def __init__(self, pairs: PairSource, *, side: int, fit: Fit, multiple: int = 1) -> None:
        self.pairs = pairs
        self.side = side
        self.fit = fit
        self.multiple = multiple
        self.key = digest([pairs.digest(), side, fit, multiple, code_digest(*CODE), torch.__version__])

    def sample(self, item: Item) -> ImageBatch:
        """Return a pair in the item's modalities, as a batch of one.

        Raises:
            DataError: if neither a homography nor two cameras relate the images.
        """
        pair = self.pairs.load(item.pair, item.modality0, item.modality1)
        image0, mask0, depth0, scale0, size0 = self._fitted(pair.view0)
        image1, mask1, depth1, scale1, size1 = self._fitted(pair.view1)
        K0, K1, T_0to1, H_0to1 = _relation(pair, scale0, scale1)
        tensors = (image0, image1, mask0, mask1, depth0, depth1, K0, K1, T_0to1, H_0to1)
        planar = torch.tensor(pair.H_0to1 is not None)
        batch = ImageBatch(*(tensor[None] for tensor in (*tensors, planar, size0, size1)))
        return batch if item.moves is None else _moved(batch, item.moves)

    def collate(self, samples: list[ImageBatch]) -> ImageBatch:
        """Join samples."""
        return ImageBatch(*(torch.cat([getattr(s, f.name) for s in samples]) for f in fields(ImageBatch)))

    def close(self) -> None:
        """Close the pairs' shards."""
        self.pairs.close()

    def _fitted(self, view: View) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[float, float], torch.Tensor]:
        """Return the square image, its mask and depth, the factors of the resizing, and (2,) the size of the area."""
        if self.fit == "pad":
            small, scale = resize(view.image, self.side, self.multiple)
        else:
            small, scale = stretch(view.image, self.side)
        h, w = small.shape[-2:]
        depth = torch.zeros(h, w)
        if view.depth is not None:
            depth = F.interpolate(view.depth[None, None], size=(h, w), mode="nearest-exact")[0, 0]
        padding = (0, self.side - w, 0, self.side - h)
        mask = F.pad(torch.ones(h, w, dtype=torch.bool), padding)
        return F.pad(small, padding), mask, F.pad(depth, padding), scale, torch.tensor([w, h])


def _moved(batch: ImageBatch, moves: Moves) -> ImageBatch:
    """Return a batch of one with both images moved, and their masks, depth and geometry with them."""
    side = batch.image0.shape[-1]
    A0, A1 = (moves.homography(image, side) for image in (0, 1))

    def pictures(
        image: torch.Tensor, mask: torch.Tensor, depth: torch.Tensor, A: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        yield moved(image[0], A, mode="bilinear")[None]
        yield moved(mask.float(), A, mode="nearest") > 0
        yield moved(depth, A, mode="nearest")

    image0, mask0, depth0 = pictures(batch.image0, batch.mask0, batch.depth0, A0)
    image1, mask1, depth1 = pictures(batch.image1, batch.mask1, batch.depth1, A1)
    planar = batch.planar[:, None, None]
    K0, K1 = (torch.where(planar, K, (A @ K.double()).float()) for A, K in ((A0, batch.K0), (A1, batch.K1)))
    H_0to1 = torch.where(planar, (A1 @ batch.H_0to1.double() @ torch.linalg.inv(A0)).float(), batch.H_0to1)
    whole = torch.full_like(batch.size0, side)  # the masks say where in it the images are
    return ImageBatch(
        *(image0, image1, mask0, mask1, depth0, depth1, K0, K1, batch.T_0to1, H_0to1, batch.planar, whole, whole)
    )


def _relation(
    pair: Pair, scale0: tuple[float, float], scale1: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return K0, K1, T_0to1 and H_0to1 of the resized images; identities stand for what does not relate them."""
    if pair.H_0to1 is not None:
        H_0to1 = scaling(scale1) @ pair.H_0to1 @ torch.linalg.inv(scaling(scale0))
        return torch.eye(3), torch.eye(3), torch.eye(4), H_0to1.float()
    assert pair.T_0to1 is not None
    K = []
    for view, scale in ((pair.view0, scale0), (pair.view1, scale1)):
        if view.K is None:
            raise DataError(f"{view.name} has no intrinsics; make the index again with {redo('index')}")
        K.append(rescale_K(view.K, scale).float())
    return K[0], K[1], pair.T_0to1.float(), torch.eye(3)
