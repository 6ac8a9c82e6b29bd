"""The image encoder of DSINE: EfficientNet-B5 in its TensorFlow variant, under the names of the published weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

EPSILON = 1e-3  # of batch normalisation, TensorFlow's
KERNELS = (3, 3, 5, 3, 5, 5, 3)  # of the depthwise convolutions, one a stage
STRIDES = (1, 2, 2, 2, 1, 2, 1)
EXPANSION = 6  # of the channels inside a block, from the second stage on
TAPS = (2, 4)  # the stages whose maps are used, at 1/8 and 1/16


@dataclass(frozen=True)
class Widths:
    """How many channels the stem, the seven stages and the head have, and how many blocks a stage."""

    stem: int
    stages: tuple[int, ...]
    blocks: tuple[int, ...]
    head: int


B5 = Widths(48, (24, 40, 64, 128, 176, 304, 512), (3, 5, 5, 7, 7, 9, 3), 2048)


class Encoder(nn.Module):
    """EfficientNet (Tan and Le 2019) without its classifier."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.original_model = _EfficientNet(widths)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the maps at 1/8, 1/16 and 1/32 of a normalised (B, 3, H, W) image, H and W multiples of 32."""
        net = self.original_model
        x = F.silu(net.bn1(net.conv_stem(image)))
        taps = []
        for i, stage in enumerate(net.blocks):
            x = stage(x)
            if i in TAPS:
                taps.append(x)
        return taps[0], taps[1], net.conv_head(x)


class _EfficientNet(nn.Module):
    """The parameters; ``bn2`` stands in the published file but after the last map that is used."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.conv_stem = _SameConv(3, widths.stem, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths.stem, EPSILON)
        self.blocks = nn.Sequential()
        inputs = (widths.stem, *widths.stages[:-1])
        for i, (cin, cout, count) in enumerate(zip(inputs, widths.stages, widths.blocks, strict=True)):
            block = _Separable if i == 0 else _Inverted
            first = block(cin, cout, KERNELS[i], STRIDES[i])
            self.blocks.append(nn.Sequential(first, *(block(cout, cout, KERNELS[i], 1) for _ in range(count - 1))))
        self.conv_head = nn.Conv2d(widths.stages[-1], widths.head, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(widths.head, EPSILON)


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does: ceil(size / stride) outputs, the odd pixel at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        across, down = (
            max((-(-size // self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - size, 0)
            for size in (x.shape[-1], x.shape[-2])
        )
        x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def _depthwise(channels: int, kernel: int, stride: int) -> _SameConv:
    return _SameConv(channels, channels, kernel, stride=stride, groups=channels, bias=False)


class _SqueezeExcite(nn.Module):
    """Weighs each channel by what all of them are on average."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * self.conv_expand(F.silu(self.conv_reduce(mean))).sigmoid()


class _Separable(nn.Module):
    """The first stage's block: depthwise, squeeze, pointwise."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1 and cin == cout
        self.conv_dw = _depthwise(cin, kernel, stride)
        self.bn1 = nn.BatchNorm2d(cin, EPSILON)
        self.se = _SqueezeExcite(cin, max(1, cin // 4))
        self.conv_pw = nn.Conv2d(cin, cout, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout, EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.se(F.silu(self.bn1(self.conv_dw(x))))
        made = self.bn2(self.conv_pw(made))
        return made + x if self.residual else made


class _Inverted(nn.Module):
    """The other stages' block: pointwise to more channels, depthwise, squeeze, pointwise back."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = EXPANSION * cin
        self.residual = stride == 1 and cin == cout
        self.conv_pw = nn.Conv2d(cin, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner, EPSILON)
        self.conv_dw = _depthwise(inner, kernel, stride)
        self.bn2 = nn.BatchNorm2d(inner, EPSILON)
        self.se = _SqueezeExcite(inner, max(1, cin // 4))
        self.conv_pwl = nn.Conv2d(inner, cout, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(cout, EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = F.silu(self.bn1(self.conv_pw(x)))
        made = self.se(F.silu(self.bn2(self.conv_dw(made))))
        made = self.bn3(self.conv_pwl(made))
        return made + x if self.residual else made
