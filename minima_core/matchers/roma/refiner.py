"""The convolutional refiners: at each stride, a warp and its certainty are corrected by what both images show there."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

KERNEL = 5
MOMENTUM = 0.01  # of the running statistics


def pixel_grid(h: int, w: int, device: torch.device) -> torch.Tensor:
    """Return (1, 2, h, w): the (x, y) of each pixel's centre in [-1, 1]."""
    ys, xs = (torch.linspace(-1 + 1 / n, 1 - 1 / n, n, device=device) for n in (h, w))
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"))[None]


class Refiner(nn.Module):
    """Depthwise convolutions over both images' features, the displacement so far and, coarsely, a local correlation."""

    def __init__(self, features: int, displacement: int, radius: int, blocks: int) -> None:
        super().__init__()
        width = 2 * features + displacement + ((2 * radius + 1) ** 2 if radius else 0)
        self.radius = radius
        self.block1 = _block(width)
        self.hidden_blocks = nn.Sequential(*[_block(width) for _ in range(blocks)])
        self.out_conv = nn.Conv2d(width, 3, 1)
        self.disp_emb = nn.Conv2d(2, displacement, 1)

    def forward(
        self, features0: torch.Tensor, features1: torch.Tensor, flow: torch.Tensor, zoom: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (B, 2, h, w) displacements and (B, 1, h, w) differences of the certainty's logit, both float32.

        Args:
            features0: (B, C, h, w).
            features1: (B, C, h, w).
            flow: (B, 2, h, w) where each pixel of image 0 lies in image 1, in [-1, 1].
            zoom: size of the images over the size that the published weights were trained at.
        """
        there = F.grid_sample(features1, flow.permute(0, 2, 3, 1), align_corners=False)
        h, w = flow.shape[-2:]
        moved = self.disp_emb(1.25 * zoom * (flow - pixel_grid(h, w, flow.device)))
        parts = [features0, there, moved]
        if self.radius:
            parts.append(local_correlation(features0, features1, flow, self.radius))
        x = self.hidden_blocks(self.block1(torch.cat(parts, 1)))
        with torch.autocast(x.device.type, enabled=False):
            delta = self.out_conv(x.float())
        return delta[:, :2], delta[:, 2:]


def local_correlation(
    features0: torch.Tensor, features1: torch.Tensor, flow: torch.Tensor, radius: int
) -> torch.Tensor:
    """Return (B, (2 r + 1)², h, w): each feature of image 0 times those around its place in image 1, in reading order.

    Only ``features0`` gets a gradient. The neighbours are a pixel of image 1's features apart.
    """
    h, w = features0.shape[-2:]
    query = features0 / features0.shape[1] ** 0.5
    place, features1 = flow.detach().permute(0, 2, 3, 1), features1.detach()
    reach = range(-radius, radius + 1)
    steps = [flow.new_tensor([2 * x / w, 2 * y / h]) for y in reach for x in reach]
    found = (F.grid_sample(features1, place + step, align_corners=False) for step in steps)
    return torch.stack([(query * near).sum(1) for near in found], 1)


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2, groups=width),
        nn.BatchNorm2d(width, momentum=MOMENTUM),
        nn.ReLU(),
        nn.Conv2d(width, width, 1),
    )
