"""The network of RoMa: coarse matches as a choice among anchors, then refined stride by stride down to pixels."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from minima_core.matchers.roma.backbones import Block, Vgg, VisionTransformer
from minima_core.matchers.roma.refiner import Refiner, pixel_grid

STRIDES = (16, 8, 4, 2, 1)  # DINOv2's 14 counts as 16
RADII = {16: 7, 8: 3, 4: 2, 2: 0, 1: 0}  # of the local correlation
TRAINED_SIDE = 560  # pixels, of the published weights
TEMPERATURE = 0.2
NOISE = 0.1
REFINED = 4  # pixels of an image that a refiner's unit is a part of
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Widths:
    """Sizes of the parts; the defaults are those of the published weights.

    Attributes:
        vgg: channels at strides 1, 2, 4, 8.
        dim: channels of DINOv2.
        depth: its blocks.
        heads: of its attention.
        positions: places a side that it was trained with.
        features: channels that refiners get, by stride.
        displacement: channels of their displacement, by stride.
        gp: channels of the basis.
        anchors: coarse matches are a choice among this many squared.
        blocks: of the coarse decoder.
        decoder_heads: of its attention.
        hidden: blocks of a refiner.
    """

    vgg: tuple[int, int, int, int] = (64, 128, 256, 512)
    dim: int = 1024
    depth: int = 24
    heads: int = 16
    positions: int = 37
    features: dict[int, int] = field(default_factory=lambda: {16: 512, 8: 512, 4: 256, 2: 64, 1: 9})
    displacement: dict[int, int] = field(default_factory=lambda: {16: 128, 8: 64, 4: 32, 2: 16, 1: 6})
    gp: int = 512
    anchors: int = 64
    blocks: int = 5
    decoder_heads: int = 8
    hidden: int = 8


TINY = Widths(
    vgg=(4, 8, 12, 16),
    dim=16,
    depth=2,
    heads=2,
    positions=8,
    features={16: 16, 8: 16, 4: 12, 2: 8, 1: 6},
    displacement={16: 8, 8: 8, 4: 8, 2: 6, 1: 4},
    gp=16,
    anchors=16,
    blocks=2,
    decoder_heads=2,
    hidden=2,
)


@dataclass(frozen=True)
class Estimate:
    """What is known after one stride.

    Attributes:
        flow: (B, 2, h, w) where each pixel of image 0 lies in image 1, in [-1, 1].
        certainty: (B, 1, h, w) logit that it is seen there.
        choice: (B, A², h, w) logits of the anchors, at the coarsest stride.
        choice_certainty: (B, 1, h, w) logit before it was refined, at the coarsest stride.
    """

    flow: torch.Tensor
    certainty: torch.Tensor
    choice: torch.Tensor | None = None
    choice_certainty: torch.Tensor | None = None


class Network(nn.Module):
    """RoMa (Edstedt et al., CVPR 2024); modules are named as in ``roma_outdoor.pth``, which leaves DINOv2 out."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"cnn": Vgg(widths.vgg)})
        self.decoder = Decoder(widths)

    def forward(
        self,
        dino: VisionTransformer,
        image0: torch.Tensor,
        image1: torch.Tensor,
        *,
        symmetric: bool = False,
    ) -> dict[int, Estimate]:
        """Return stride -> estimate for (B, 3, S, S) RGB images in [0, 1], S a multiple of 14 and of 8.

        With ``symmetric`` the other direction follows along the batch.
        """
        images = normalised(torch.cat([image0, image1]))
        features = self.encoder["cnn"](images)
        features[16] = dino(images)
        return self.decoder(*_sides(features, symmetric), zoom=images.shape[-1] / TRAINED_SIDE)

    def refine(self, image0: torch.Tensor, image1: torch.Tensor, known: Estimate) -> dict[int, Estimate]:
        """Return stride -> estimate, in both directions, for larger images whose matches are known roughly."""
        images = normalised(torch.cat([image0, image1]))
        features = self.encoder["cnn"](images)
        return self.decoder(*_sides(features, True), zoom=images.shape[-1] / TRAINED_SIDE, known=known)


class Decoder(nn.Module):
    """From both images' features to the warp of image 0 and its certainty."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.embedding_decoder = CoarseDecoder(widths)
        self.gps = nn.ModuleDict({"16": GaussianProcess(widths.gp)})
        given = dict(zip(STRIDES, (widths.dim, *reversed(widths.vgg)), strict=True))
        self.proj = nn.ModuleDict(
            {
                str(s): nn.Sequential(nn.Conv2d(given[s], widths.features[s], 1), nn.BatchNorm2d(widths.features[s]))
                for s in STRIDES
            }
        )
        self.conv_refiner = nn.ModuleDict(
            {str(s): Refiner(widths.features[s], widths.displacement[s], RADII[s], widths.hidden) for s in STRIDES}
        )

    def forward(
        self,
        features0: dict[int, torch.Tensor],
        features1: dict[int, torch.Tensor],
        *,
        zoom: float,
        known: Estimate | None = None,
    ) -> dict[int, Estimate]:
        """Return stride -> estimate; no gradient passes from one stride to the next.

        Args:
            features0: stride -> (B, C, h, w).
            features1: likewise.
            zoom: size of the images over ``TRAINED_SIDE``.
            known: matches to start from at stride 8; None to find them at stride 16.
        """
        h, w = features0[1].shape[-2:]
        estimates: dict[int, Estimate] = {}
        for stride in STRIDES if known is None else STRIDES[1:]:
            choice = choice_certainty = None
            with full(features0[1]):
                here0, here1 = (self.proj[str(stride)](side[stride].float()) for side in (features0, features1))
            if known is None:
                choice, choice_certainty = self.choose(here0, here1)
                flow, certainty = chosen_place(choice), choice_certainty
            else:
                flow, certainty = (
                    F.interpolate(x.detach(), here0.shape[-2:], mode="bilinear") for x in (known.flow, known.certainty)
                )
            delta, delta_certainty = self.conv_refiner[str(stride)](here0, here1, flow, zoom)
            flow = flow + delta * (stride / (REFINED * delta.new_tensor([w, h]).view(2, 1, 1)))
            known = Estimate(flow, certainty + delta_certainty, choice, choice_certainty)
            estimates[stride] = known
        return estimates

    def choose(self, features0: torch.Tensor, features1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (B, A², h, w) logits of the anchors and (B, 1, h, w) of the certainty from (B, C, h, w) features."""
        with full(features0):
            posterior = self.gps["16"](features0, features1)
        choice, certainty = self.embedding_decoder(posterior, features0)
        return choice, certainty


class CoarseDecoder(nn.Module):
    """A transformer over the tokens of image 0 that chooses an anchor in image 1 for each."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        dim = widths.gp + widths.features[16]
        self.blocks = nn.Sequential(
            *[Block(dim, widths.decoder_heads, bias=False, scaled=False) for _ in range(widths.blocks)]
        )
        self.to_out = nn.Linear(dim, widths.anchors**2 + 1)

    def forward(self, posterior: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (B, A², h, w) logits of the anchors and (B, 1, h, w) of the certainty, float32."""
        x = torch.cat([posterior, features], 1)
        out = self.to_out(self.blocks(x.flatten(2).mT)).mT.unflatten(2, x.shape[-2:]).float()
        return out[:, :-1], out[:, -1:]


class GaussianProcess(nn.Module):
    """Regresses, from features alone, the encoded place in image 1 of what image 0 shows (the paper's section 3.2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pos_conv = nn.Conv2d(2, dim, 1)

    def forward(self, features0: torch.Tensor, features1: torch.Tensor) -> torch.Tensor:
        """Return the (B, D, h, w) posterior mean at each pixel of (B, C, h, w) ``features0``, in float32.

        It is NaN where features are not finite.
        """
        h, w = features1.shape[-2:]
        basis = (8 * math.pi * self.pos_conv(pixel_grid(h, w, features1.device))).cos()
        x, y = (features.flatten(2).mT for features in (features0, features1))
        K_11 = kernel(y, y) + NOISE * torch.eye(h * w, device=y.device)
        factor, failed = torch.linalg.cholesky_ex(K_11)
        # of features that are not finite: NaN, which a training counts, in the place of an error, which ends it
        factor = factor.masked_fill(failed.bool()[:, None, None], torch.nan)
        weights = torch.cholesky_solve(basis.flatten(2).mT.expand(len(y), -1, -1), factor)
        return (kernel(x, y) @ weights).mT.reshape(len(x), -1, *features0.shape[-2:])


def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return (B, N, M): the exponential of the cosine between (B, N, C) and (B, M, C), 1 where they are the same."""
    length = x.norm(dim=-1)[:, :, None] * y.norm(dim=-1)[:, None]
    return ((x @ y.mT / (length + 1e-6) - 1) / TEMPERATURE).exp()


def anchor_grid(number: int, device: torch.device) -> torch.Tensor:
    """Return (number², 2): the (x, y) of the anchors in [-1, 1], in reading order."""
    return pixel_grid(number, number, device)[0].flatten(1).T


def chosen_place(choice: torch.Tensor) -> torch.Tensor:
    """Return (B, 2, h, w): the mean of the likeliest anchor and its four neighbours, by their probabilities.

    Neighbours are taken in reading order, as the published weights expect: at the left and right edge one of them
    lies at the other end.
    """
    count = choice.shape[1]
    side = math.isqrt(count)
    best = choice.argmax(1)
    index = torch.stack([best + step for step in (-1, 0, 1, -side, side)], 1).clamp(0, count - 1)
    weight = choice.softmax(1).gather(1, index)
    places = anchor_grid(side, choice.device)[index].permute(4, 0, 1, 2, 3)
    return ((weight * places).sum(2) / weight.sum(1)).transpose(0, 1)


def normalised(image: torch.Tensor) -> torch.Tensor:
    """Return (B, 3, H, W) images in [0, 1] as the backbones expect them."""
    mean, deviation = (image.new_tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return (image - mean) / deviation


def full(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Return a context of float32, whatever is around it."""
    return torch.autocast(tensor.device.type, enabled=False)


def _sides(
    features: dict[int, torch.Tensor], symmetric: bool
) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
    """Split what was computed for both images at once; with ``symmetric`` each image is on both sides."""
    halves = {stride: feature.chunk(2) for stride, feature in features.items()}
    if symmetric:
        return features, {stride: torch.cat([second, first]) for stride, (first, second) in halves.items()}
    return {s: first for s, (first, _) in halves.items()}, {s: second for s, (_, second) in halves.items()}
