"""The plugin: settings, weights, and the two faces of a matcher, inference and loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Self

import torch
from pydantic import Field
from torch import nn

from minima_core import weights
from minima_core.geometry.cells import CELL, cell_points
from minima_core.geometry.coords import rescale_points
from minima_core.licences import Licence
from minima_core.matchers._semidense import CellMatcher
from minima_core.matchers.base import Losses, Matcher, Provenance, resize
from minima_core.matchers.xfeat_star.network import build, describe, mean_place, places
from minima_core.published import PUBLISHED
from minima_core.types import Matches

if TYPE_CHECKING:
    from minima_core.data.image_pairs import ImageBatch

FILE = "xfeat.pt"
EXTRACTOR = "extractor.net.net."  # what the names of its weights begin with in a LightGlue model
MULTIPLE = 32  # the coarsest features are that many pixels apart
SCALES = {0.6: 0.2, 1.3: 0.8}  # of the image -> share of the cells that are taken at that scale, the authors'


@dataclass(frozen=True)
class Cells:
    """The most reliable cells of one image, at both scales.

    Attributes:
        points: (N, 2) pixels of the image that was given.
        pixel: (N, 2) how many of its pixels one of the scaled image's is, along x and y.
        desc: (N, 64).
    """

    points: torch.Tensor
    pixel: torch.Tensor
    desc: torch.Tensor


class XFeatStar(CellMatcher):
    """XFeat's semi-dense mode (Potje et al., CVPR 2024, section 3.2): nearest neighbours among cells, refined.

    Unlike LoFTR it looks at each image alone, so that its cells are described once for all pairs. It has an eighth of
    LoFTR's weights, and they are free to use.
    """

    class Params(Matcher.Params):
        """Settings, ``matcher.xfeat_star`` in params.yaml."""

        long_side: Annotated[int, Field(ge=96, multiple_of=MULTIPLE)]  # also the side of training images
        max_keypoints: Annotated[int, Field(ge=1)]  # matches; the surest are kept
        cells: Annotated[int, Field(ge=1)]  # of an image that are looked at, the most reliable
        certainty: Annotated[float, Field(ge=0, lt=1)]  # least probability of a match's likeliest place

    params: Params

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.network = build()

    @property
    def training_multiple(self) -> int:
        """That of the coarsest features; there is one scale in training."""
        return MULTIPLE

    def train(self, mode: bool = True) -> Self:
        """Set the mode of everything but batch norms, whose statistics stay those of the weights at the start.

        A batch of a few pairs in many modalities says little about what features are like in use.
        """
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.eval()
        return self

    def load_published(self) -> Provenance:
        """Load the official weights, or those of the extractor where the file given for them is of a LightGlue model.

        XFeat that was trained together with LightGlue describes cells as well.
        """
        state = weights.load(FILE)
        own = {name.removeprefix(EXTRACTOR): some for name, some in state.items() if name.startswith(EXTRACTOR)}
        weights.load_strictly(self.network, own or state, FILE)
        return Provenance.of(FILE)

    def terms(self) -> Licence:
        """Return the licence of the official weights."""
        return PUBLISHED[FILE].licence

    def _extract(self, image: torch.Tensor, max_keypoints: int) -> Cells:  # noqa: ARG002 (cells are counted apart)
        found = [
            self._cells_at(image, scale, max(1, round(share * self.params.cells))) for scale, share in SCALES.items()
        ]
        return Cells(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _cells_at(self, image: torch.Tensor, scale: float, limit: int) -> tuple[torch.Tensor, ...]:
        """Return points, size of a pixel and descriptors of the ``limit`` most reliable cells at one scale."""
        small, factor = resize(image, max(MULTIPLE, round(scale * max(image.shape[-2:]))), MULTIPLE)
        h, w = small.shape[-2:]
        desc, reliability = describe(self.network, small[None], torch.ones_like(small[:1], dtype=torch.bool))
        best = reliability[0].argsort(descending=True, stable=True)[:limit]
        pixel = torch.tensor([1 / factor[0], 1 / factor[1]], device=image.device)
        points = rescale_points(cell_points(h // CELL, w // CELL, image.device)[best], pixel)
        return points, pixel.expand(len(best), -1), desc[0, best]

    def _match(self, found0: Sequence[Cells], found1: Sequence[Cells], max_keypoints: int) -> list[Matches]:
        return [self._match_pair(*pair, max_keypoints) for pair in zip(found0, found1, strict=True)]

    def _match_pair(self, found0: Cells, found1: Cells, max_keypoints: int) -> Matches:
        with torch.autocast(found0.desc.device.type, enabled=False):  # near ties decide who is nearest
            similarity = found0.desc @ found1.desc.mT
        j = similarity.argmax(1)
        i = torch.where(similarity.argmax(0)[j] == torch.arange(len(j), device=j.device))[0]
        j = j[i]
        if not len(i):
            return Matches.empty()
        offset, certainty = mean_place(places(self.network, found0.desc[i], found1.desc[j]))
        best = certainty.argsort(descending=True, stable=True)[:max_keypoints]
        best = best[certainty[best] > self.params.certainty]
        i, j = i[best], j[best]
        mkpts0 = found0.points[i] + offset[best] * found0.pixel[i]
        return Matches(mkpts0, found1.points[j], certainty[best])

    def compiled(self) -> list[nn.Module]:
        """Return the whole network."""
        return [self.network]

    def loss(self, batch: ImageBatch) -> Losses:
        """Return the loss of telling cells apart plus those of their reliabilities and of the places in them."""
        from minima_core.matchers.xfeat_star.loss import PLACE_WEIGHT, RELIABILITY_WEIGHT, pair_losses, truths

        batch = batch.to(next(self.network.parameters()).device)
        images, masks = torch.cat([batch.image0, batch.image1]), torch.cat([batch.mask0, batch.mask1])
        desc, reliability = describe(self.network, images, masks)
        sides = (*desc.chunk(2), *reliability.chunk(2))
        of_pairs = zip(truths(batch), *sides, strict=True)
        # near ties decide which cell is told; and CUDA refuses the reliabilities' loss in half precision
        with torch.autocast(images.device.type, enabled=False):
            each = torch.stack([pair_losses(self.network, *pair) for pair in of_pairs])
        cells, trust, place, told = each.mean(0)
        parts = {"coarse": cells, "reliability": trust, "place": place, "recall": told}
        total = cells + RELIABILITY_WEIGHT * trust + PLACE_WEIGHT * place
        return Losses(total, {name: float(value.detach()) for name, value in parts.items()})
