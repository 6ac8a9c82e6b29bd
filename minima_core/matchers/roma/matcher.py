"""The plugin: settings, weights, and the two faces of a matcher, inference and loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from minima_core import weights
from minima_core.errors import WeightsError
from minima_core.geometry.coords import from_corner_origin
from minima_core.licences import Licence
from minima_core.matchers.base import Losses, Matcher, Provenance, stretch
from minima_core.matchers.roma.backbones import VisionTransformer
from minima_core.matchers.roma.network import TINY, Estimate, Network, Widths
from minima_core.matchers.roma.refiner import pixel_grid
from minima_core.matchers.roma.sampling import balanced_sample
from minima_core.types import Matches

if TYPE_CHECKING:
    from minima_core.data.image_pairs import ImageBatch, ImagePairs
    from minima_core.data.pairs import PairSource

FILES = {"outdoor": "roma_outdoor.pth", "minima": "minima_roma.pth"}
DINO_FILE = "dinov2_vitl14_pretrain.pth"
WIDTHS = {"full": Widths(), "tiny": TINY}
DOUBT = 0.5  # how much of a coarse doubt comes off the fine certainty's logit


class Roma(Matcher):
    """RoMa (Edstedt et al., CVPR 2024): every pixel of each image is matched, the best matches are drawn."""

    class Params(Matcher.Params):
        """Settings, ``matcher.roma`` in params.yaml."""

        width: Literal["full", "tiny"]  # tiny has no published weights; it is for trying things on a CPU
        published: Literal["outdoor", "minima"]  # the weights that load_published takes
        long_side: Annotated[int, Field(ge=64)]
        max_keypoints: Annotated[int, Field(ge=1)]  # matches
        coarse_side: Annotated[int, Field(ge=56, multiple_of=56)]  # of the square that is matched: 14 and 8 divide it
        fine_side: Annotated[int, Field(ge=64, multiple_of=8)]  # of the square that refines the matches
        threshold: Annotated[float, Field(gt=0, lt=1)]  # certainty above which a match counts as sure

    params: Params

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        widths = WIDTHS[params.width]
        self.dino = VisionTransformer(widths.dim, widths.depth, widths.heads, widths.positions)
        self.network = Network(widths)

    def load_published(self) -> Provenance:
        """Load the official weights of DINOv2 and, as ``published`` names them, of the RoMa trained on it."""
        if self.params.width == "tiny":
            raise WeightsError("there are no published weights of a tiny roma; set matcher.roma.width: full")
        file = FILES[self.params.published]
        weights.fetch([DINO_FILE, file])
        weights.load_strictly(self.dino, weights.load(DINO_FILE), DINO_FILE)
        weights.load_strictly(self.network, weights.load(file), file)
        return Provenance.of(DINO_FILE, file)

    def terms(self) -> Licence:
        """Return the licence of DINOv2's and RoMa's official weights together."""
        return Provenance.of(DINO_FILE, FILES[self.params.published]).licence

    def load_frozen(self) -> Provenance:
        """Load the official weights of DINOv2; the tiny one stays as it was made."""
        if self.params.width == "tiny":
            return super().load_frozen()
        weights.load_strictly(self.dino, weights.load(DINO_FILE), DINO_FILE)
        return Provenance.of(DINO_FILE)

    def _match(
        self, images0: Sequence[torch.Tensor], images1: Sequence[torch.Tensor], max_keypoints: int
    ) -> list[Matches]:
        coarse, fine = (
            (_squares(images0, side), _squares(images1, side))
            for side in (self.params.coarse_side, self.params.fine_side)
        )
        matches = []
        for image0, image1, warp, certainty in zip(images0, images1, *self.dense(coarse, fine), strict=True):
            drawn = balanced_sample(warp, certainty, max_keypoints, self.params.threshold)
            places0, places1 = (
                from_corner_origin((places + 1) / 2 * places.new_tensor([image.shape[-1], image.shape[-2]]))
                for places, image in ((warp[drawn, :2], image0), (warp[drawn, 2:], image1))
            )
            matches.append(Matches(places0, places1, certainty[drawn]))
        return matches

    def dense(
        self, coarse: tuple[torch.Tensor, torch.Tensor], fine: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (B, 2 S², 4) places in both images, in [-1, 1], and (B, 2 S²) certainties: first images 0's pixels.

        Args:
            coarse: (B, 3, C, C) images 0 and images 1 that are matched.
            fine: (B, 3, S, S) the same images, that refine the matches.
        """
        estimates = self.network(self.dino, *coarse, symmetric=True)
        refined = self.network.refine(*fine, estimates[1])[1]
        doubt = F.interpolate(estimates[16].certainty, fine[0].shape[-2:], mode="bilinear").clamp(max=0)
        return both_ways(Estimate(refined.flow, refined.certainty - DOUBT * doubt))

    def compiled(self) -> list[nn.Module]:
        """Return both backbones and the coarse decoder; of the refiners, each stride would be another network."""
        return [self.dino, self.network.encoder["cnn"], self.network.decoder.embedding_decoder]

    def training_data(
        self,
        pairs: PairSource,
        *,
        max_keypoints: int,  # noqa: ARG002 (a dense loss takes every pixel)
        cache: Path,
        workers: int,
    ) -> ImagePairs:
        """Return square images of ``coarse_side`` with their depth and cameras."""
        from minima_core.data.image_pairs import ImagePairs  # matching needs nothing of what training does

        return ImagePairs(pairs, side=self.params.coarse_side, fit="stretch", cache=cache, workers=workers)

    def loss(self, batch: ImageBatch) -> Losses:
        """Return RoMa's loss over all strides, from image 0 to image 1."""
        from minima_core.matchers.roma.loss import dense_loss
        from minima_core.supervision.dense import dense_targets

        batch = batch.to(next(self.network.parameters()).device)
        estimates = self.network(self.dino, batch.image0, batch.image1)
        total, parts = dense_loss(estimates, lambda size: dense_targets(batch, size))
        return Losses(total, {name: float(value.detach()) for name, value in parts.items()})

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the backbone, which learns slowly, and the decoder."""
        return {
            "encoder": list(self.network.encoder.parameters()),
            "decoder": list(self.network.decoder.parameters()),
        }


def _squares(images: Sequence[torch.Tensor], side: int) -> torch.Tensor:
    return torch.stack([stretch(image, side)[0] for image in images])


def both_ways(estimate: Estimate) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, 2 h w, 4) places in both images and (B, 2 h w) certainties of a (2 B, ...) estimate, one way first.

    What lies outside the other image has no certainty.
    """
    flow = estimate.flow
    outside = (flow.abs() > 1).any(1)
    certainty = estimate.certainty[:, 0].sigmoid().masked_fill(outside, 0)
    h, w = flow.shape[-2:]
    there, back = flow.clamp(-1, 1).flatten(2).mT.chunk(2)
    own = pixel_grid(h, w, flow.device)[0].flatten(1).T.expand_as(there)
    warp = torch.cat([torch.cat([own, there], 2), torch.cat([back, own], 2)], 1)
    return warp, torch.cat(certainty.flatten(1).chunk(2), 1)
