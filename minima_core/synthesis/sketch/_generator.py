"""The generator of Anime2Sketch: a U-Net of eight halvings, layer by layer under the checkpoint's names."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

WIDTHS = (1, 2, 4, 8, 8, 8, 8, 8)  # channels after each halving, in multiples of the first
REDUCTION = 2 ** len(WIDTHS)  # the sides of the input are multiples of this
SLOPE = 0.2  # of the leaky ReLU


class Generator(nn.Module):
    """(B, 3, S, S) in [-1, 1] to (B, 1, S, S) in [-1, 1], dark strokes on light paper; S a multiple of 256.

    Args:
        improved: whether the six inner blocks enlarge without the checkerboard that transposed convolutions leave.
        width: channels after the first halving, 64 in the published networks.
    """

    def __init__(self, *, improved: bool, width: int = 64) -> None:
        super().__init__()
        widths = [width * factor for factor in WIDTHS]
        inner: nn.Module = _Innermost(widths[-2], widths[-1])
        for outside, inside in reversed(list(pairwise(widths[:-1]))):
            inner = _Block(outside, inside, inner, improved=improved)
        self.model = nn.Module()
        self.model.model = nn.Sequential(_halve(3, width), inner, nn.ReLU(), _double(2 * width, 1), nn.Tanh())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the drawing of an image."""
        drawing: torch.Tensor = self.model.model(image)  # type: ignore[operator]
        return drawing


class _Skip(nn.Module):
    """(B, C, h, w) to (B, 2C, h, w): the input and what ``model`` makes of it.

    The published network activates in place, so that its skips carry activated values; the ReLU that every skip ends
    in leaves the same of both.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.LeakyReLU(SLOPE), *layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.model(x)], 1)


class _Block(_Skip):
    """One level of the U: halve, the levels inside it, double."""

    def __init__(self, outside: int, inside: int, inner: nn.Module, *, improved: bool) -> None:
        enlarge = _Enlarge if improved else _double
        super().__init__(
            _halve(outside, inside),
            nn.InstanceNorm2d(inside),
            inner,
            nn.ReLU(),
            enlarge(2 * inside, outside),
            nn.InstanceNorm2d(outside),
        )


class _Innermost(_Skip):
    """The bottom of the U."""

    def __init__(self, outside: int, inside: int) -> None:
        super().__init__(_halve(outside, inside), nn.ReLU(), _double(inside, outside), nn.InstanceNorm2d(outside))


class _Enlarge(nn.Module):
    """Bilinear doubling, binomial smoothing, a convolution and a residual perceptron for each pixel."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.smooth = _Smooth()
        self.conv = nn.Conv2d(inside, outside, 3, padding=1)
        self.mlp = nn.Sequential(nn.Conv2d(outside, 4 * outside, 1), nn.GELU(), nn.Conv2d(4 * outside, outside, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        doubled = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        mixed = self.conv(self.smooth(doubled))
        return mixed + self.mlp(mixed)


class _Smooth(nn.Module):
    """Each channel under the binomial 3 x 3 kernel, the border repeated outwards."""

    kernel: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", (torch.outer(row, row) / 16)[None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels = x.shape[1]
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv2d(padded, self.kernel.expand(channels, -1, -1, -1), groups=channels)


def _halve(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)


def _double(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
