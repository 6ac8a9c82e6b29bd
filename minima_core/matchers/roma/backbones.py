"""What RoMa sees of an image: fine features of a VGG19 and coarse ones of a DINOv2, named as in their files."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

PATCH = 14  # pixels a side that one token of DINOv2 stands for
DEPTHS = (2, 2, 4, 4)  # convolutions of VGG19 at strides 1, 2, 4 and 8


class Vgg(nn.Module):
    """VGG19 with batch normalisation up to stride 8 (Simonyan and Zisserman, ICLR 2015)."""

    def __init__(self, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        cin = 3
        for width, depth in zip(widths, DEPTHS, strict=True):
            for _ in range(depth):
                layers += [nn.Conv2d(cin, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                cin = width
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.ModuleList(layers)

    def forward(self, image: torch.Tensor) -> dict[int, torch.Tensor]:
        """Return stride -> (B, C, H // stride, W // stride), what goes into each pooling."""
        features: dict[int, torch.Tensor] = {}
        x = image
        for layer in self.layers:
            if isinstance(layer, nn.MaxPool2d):
                features[2 ** len(features)] = x
            x = layer(x)
        return features


class VisionTransformer(nn.Module):
    """DINOv2 (Oquab et al., TMLR 2024); always frozen."""

    def __init__(self, dim: int, depth: int, heads: int, positions: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + positions**2, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, dim))  # of its own training; the file has it
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, PATCH, stride=PATCH)})
        self.blocks = nn.ModuleList([Block(dim, heads, bias=True, scaled=True, eps=1e-6) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.positions = positions
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return (B, C, H / 14, W / 14) normalised tokens of (B, 3, H, W) images."""
        patches = self.patch_embed["proj"](image)
        h, w = patches.shape[-2:]
        tokens = (patches + self._positions(h, w)).flatten(2).mT
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        x = torch.cat([first, tokens], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:].mT.unflatten(2, (h, w))

    def _positions(self, h: int, w: int) -> torch.Tensor:
        """Return (1, C, h, w) embeddings of the patches' places.

        The tenth of a patch belongs to how DINOv2 was trained and moves the samples a little.
        """
        known = self.pos_embed[:, 1:].mT.reshape(1, -1, self.positions, self.positions)
        if (h, w) == (self.positions, self.positions):
            return known
        factors = ((h + 0.1) / self.positions, (w + 0.1) / self.positions)
        return F.interpolate(known.float(), scale_factor=factors, mode="bicubic", align_corners=False)


class Block(nn.Module):
    """A transformer block, normalised first; with ``scaled`` each branch is weighted per channel."""

    def __init__(self, dim: int, heads: int, *, bias: bool, scaled: bool, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = _Attention(dim, heads, bias=bias)
        self.ls1 = _LayerScale(dim) if scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = _Mlp(dim)
        self.ls2 = _LayerScale(dim) if scaled else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, N, C) tokens."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _LayerScale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma
