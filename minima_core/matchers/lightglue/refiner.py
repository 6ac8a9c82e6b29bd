"""A small network that moves matches to where the two images agree, each end by half of what it sees.

A keypoint found anew in another modality lies a few pixels off the place that it was found at in the first: an edge is
elsewhere in heat than in light. The network describes both images at half their resolution, of their local contrast
alone, looks in a window about one end of a match for what lies at the other end, and judges by a learned prior and the
shape of the response how far the end is to be moved. Both ends are looked for, so that two estimates are averaged
and swapping the images swaps the result.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from minima_core.geometry.coords import rescale_points
from minima_core.types import Matches

STRIDE = 2  # pixels of a cell of the descriptors
REACH = 5  # cells that a point may be moved, either way
WINDOW, GRID = 32, 8  # pixels: side of what contrast is relative to, and how far apart it is measured
NOISE = 0.01  # deviation of brightness that counts as flat
_HEADS, _DIM = 16, 4  # groups of a descriptor that are compared each by itself
_SHARP = 4.0  # factor of their cosines
_BORDER = 2  # cells that the two convolutions over a window take off its margin
_SIDE = 2 * (REACH + _BORDER) + 1
_AT_ONCE = 1024  # windows; 64 MiB


class Refiner(nn.Module):
    """Says how far a point of one image is from what lies at a point of the other."""

    def __init__(self) -> None:
        super().__init__()

        def layer(inputs: int, dilation: int = 1) -> list[nn.Module]:
            conv = nn.Conv2d(inputs, 32, 3, padding=dilation, dilation=dilation, bias=False)
            return [conv, nn.BatchNorm2d(32), nn.ReLU()]

        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(STRIDE),
            *layer(STRIDE**2),
            *layer(32),
            *layer(32, dilation=2),
            *layer(32, dilation=4),
            nn.Conv2d(32, _HEADS * _DIM, 1),
            nn.BatchNorm2d(_HEADS * _DIM, affine=False),
        )
        self.judge = nn.Sequential(
            nn.Conv2d(_HEADS, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 1, 1)
        )
        self.prior = nn.Parameter(torch.zeros(2 * REACH + 1, 2 * REACH + 1))
        cells = torch.arange(-REACH, REACH + 1) * float(STRIDE)
        self.moves: torch.Tensor  # (K, 2) pixels, of every cell of a window
        self.register_buffer("moves", torch.cartesian_prod(cells, cells).flip(1), persistent=False)

    def describe(self, gray: torch.Tensor) -> torch.Tensor:
        """Return (B, h, w, D) float32 descriptors of (B, 1, H, W) images, of their squares of ``STRIDE`` pixels."""
        right, below = (-side % STRIDE for side in (gray.shape[-1], gray.shape[-2]))
        contrast = F.pad(_local_contrast(gray), (0, right, 0, below), mode="replicate")
        described = self.encoder(contrast).float()
        groups = described.view(len(gray), _HEADS, _DIM, *described.shape[2:])
        unit = groups * (groups.square().sum(2, keepdim=True) + 1e-6).rsqrt()
        return unit.flatten(1, 2).permute(0, 2, 3, 1).contiguous()

    def forward(
        self, fixed: torch.Tensor, moved: torch.Tensor, kpts_fixed: torch.Tensor, kpts_moved: torch.Tensor
    ) -> torch.Tensor:
        """Return (N, K) logits of where about its ``kpts_moved`` that lies which lies at each of ``kpts_fixed``.

        Args:
            fixed: (h, w, D) descriptors of the image whose points stay.
            moved: (h', w', D) of the other.
            kpts_fixed: (N, 2) pixels.
            kpts_moved: (N, 2) pixels.
        """
        n = len(kpts_fixed)
        near, share = _windows(fixed, kpts_fixed, 1)
        wanted = _between(near, share).reshape(n, 1, _HEADS, _DIM)
        found, share = _windows(moved, kpts_moved, _SIDE)
        alike = (found.view(n, (_SIDE + 1) ** 2, _HEADS, _DIM) * wanted).sum(-1) * _SHARP
        alike = _between(alike.view(n, _SIDE + 1, _SIDE + 1, _HEADS), share)
        judged: torch.Tensor = self.judge(alike.permute(0, 3, 1, 2))[:, 0].float()
        return (judged + self.prior).flatten(1)

    def offsets(self, logits: torch.Tensor) -> torch.Tensor:
        """Return (N, 2) pixels, the mean of the moves under (N, K) logits."""
        return logits.softmax(-1) @ self.moves

    def move(self, matches: Matches, maps0: torch.Tensor, maps1: torch.Tensor) -> Matches:
        """Return matches with both ends moved, given the descriptors of image 0 and of image 1."""
        ends = []
        for fixed, moved, stays, goes in (
            (maps1, maps0, matches.mkpts1, matches.mkpts0),
            (maps0, maps1, matches.mkpts0, matches.mkpts1),
        ):
            parts = zip(torch.split(stays, _AT_ONCE), torch.split(goes, _AT_ONCE), strict=True)
            ends.append(torch.cat([some + self.offsets(self(fixed, moved, at, some)) / 2 for at, some in parts]))
        return Matches(ends[0], ends[1], matches.scores)


def _local_contrast(gray: torch.Tensor) -> torch.Tensor:
    """Return (B, 1, H, W) images less their mean about each pixel, over their deviation there."""

    def mean(images: torch.Tensor) -> torch.Tensor:
        margin = (WINDOW - GRID) // 2
        coarse = F.pad(images, (margin,) * 4, mode="replicate")
        for along in (0, 1):
            side, step = ((n, 1)[:: 1 - 2 * along] for n in (WINDOW, GRID))
            coarse = F.avg_pool2d(coarse, side, step, ceil_mode=True)
        return F.interpolate(coarse, size=images.shape[-2:], mode="bilinear", align_corners=False)

    gray = gray.float()
    level = mean(gray)
    spread = (mean(gray.square()) - level.square()).clamp(min=0)
    return (gray - level) / (spread + NOISE**2).sqrt()


def _windows(cells: torch.Tensor, kpts: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the (N, side + 1, side + 1, D) whole cells about (N, 2) pixels, and the (N, 2) shares for ``_between``.

    Beyond the margin lie copies of what is there.
    """
    height, width, _ = cells.shape
    places = rescale_points(kpts, (1 / STRIDE, 1 / STRIDE))
    whole = places.floor()
    to = torch.arange(side + 1, device=cells.device) - side // 2
    x, y = (whole.long()[:, k, None] + to for k in (0, 1))
    index = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None]
    return cells.flatten(0, 1).index_select(0, index.flatten()).view(*index.shape, cells.shape[-1]), places - whole


def _between(cells: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return (N, S, S, ...) values that lie at ``share`` of the way between those of (N, S + 1, S + 1, ...) cells."""
    x, y = (share[:, k].reshape(-1, *[1] * (cells.ndim - 1)) for k in (0, 1))
    rows = torch.lerp(cells[:, :-1], cells[:, 1:], y)
    return torch.lerp(rows[:, :, :-1], rows[:, :, 1:], x)
