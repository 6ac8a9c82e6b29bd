"""Training samples for matchers that look at whole images: two squares, their depth and cameras, in one batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from minima_core.config import digest
from minima_core.data.augment import Moves, moved
from minima_core.data.fitted import Fit, FittedImages
from minima_core.data.index import Scene
from minima_core.data.pairs import PairSource, motion
from minima_core.data.sampling import Item
from minima_core.errors import DataError, redo
from minima_core.geometry.coords import rescale_K, scaling
from minima_core.provenance import code_digest

# what decides a sample
CODE = (
    *("data/augment.py", "data/fitted.py", "data/image_pairs.py", "data/pairs.py", "data/parts.py", "data/shards.py"),
    *("geometry", "io", "matchers/base.py"),
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
        cache: where fitted images are kept, shared by all sources and sizes.
        workers: threads that make what is missing there.
    """

    def __init__(
        self, pairs: PairSource, *, side: int, fit: Fit, cache: Path, multiple: int = 1, workers: int = 1
    ) -> None:
        self.pairs = pairs
        self.side = side
        how = digest([side, fit, multiple, code_digest(*CODE), torch.__version__])
        self.images = FittedImages(pairs, cache / how[:16], side=side, fit=fit, multiple=multiple, workers=workers)
        self.key = digest([pairs.digest(), how])

    def sample(self, item: Item) -> ImageBatch:
        """Return a pair in the item's modalities, as a batch of one.

        Raises:
            DataError: if neither a homography nor two cameras relate the images.
        """
        scene, pair = self.pairs.locate(item.pair)
        i, j = (int(n) for n in scene.pairs[pair])
        image0, mask0, depth0, size0 = self._square(scene, i, item.modality0)
        image1, mask1, depth1, size1 = self._square(scene, j, item.modality1)
        K0, K1, T_0to1, H_0to1 = _relation(scene, pair, size0, size1)
        tensors = (image0, image1, mask0, mask1, depth0, depth1, K0, K1, T_0to1, H_0to1)
        facts = (torch.tensor(scene.H_0to1 is not None), torch.tensor(size0), torch.tensor(size1))
        batch = ImageBatch(*(tensor[None] for tensor in (*tensors, *facts)))
        return batch if item.moves is None else _moved(batch, item.moves)

    def collate(self, samples: list[ImageBatch]) -> ImageBatch:
        """Join samples."""
        return ImageBatch(*(torch.cat([getattr(s, f.name) for s in samples]) for f in fields(ImageBatch)))

    def close(self) -> None:
        """Close the kept images and the pairs' shards."""
        self.images.close()
        self.pairs.close()

    def _square(
        self, scene: Scene, i: int, modality: str
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[int, int]]:
        """Return the square image, its mask and depth, and the width and height of the area."""
        w, h = self.images.size(scene, i)
        image, depth = torch.zeros(3, self.side, self.side), torch.zeros(self.side, self.side)
        mask = torch.zeros(self.side, self.side, dtype=torch.bool)
        torch.div(self.images.image(scene, i, modality), 255, out=image[:, :h, :w])
        mask[:h, :w] = True
        if (known := self.images.depth(scene, i)) is not None:
            depth[:h, :w] = known
        return image, mask, depth, (w, h)


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
    scene: Scene, pair: int, size0: tuple[int, int], size1: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return K0, K1, T_0to1 and H_0to1 of images resized to these; identities stand for what does not relate them."""
    i, j = (int(n) for n in scene.pairs[pair])
    scale0, scale1 = ((w / int(scene.size[n][0]), h / int(scene.size[n][1])) for n, (w, h) in ((i, size0), (j, size1)))
    if scene.H_0to1 is not None:
        H_0to1 = scaling(scale1) @ torch.from_numpy(scene.H_0to1[pair]) @ torch.linalg.inv(scaling(scale0))
        return torch.eye(3), torch.eye(3), torch.eye(4), H_0to1.float()
    K = []
    for n, scale in ((i, scale0), (j, scale1)):
        if not np.isfinite(scene.K[n]).all():
            raise DataError(f"{scene.image_id(n)} has no intrinsics; make the index again with {redo('index')}")
        K.append(rescale_K(torch.from_numpy(scene.K[n]), scale).float())
    return K[0], K[1], motion(scene, i, j).float(), torch.eye(3)
