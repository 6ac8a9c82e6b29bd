"""XoFTR's network, its parameters named as in the published checkpoints; the layers it has from LoFTR are kornia's.

Tuzcuoglu et al., CVPR Workshops 2024. A fine match is sought from coarse to fine: a matched cell looks at the 3 x 3
features of a quarter of the size around it, these at the 5 x 5 of a half.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

import torch
from kornia.feature.loftr.backbone.resnet_fpn import BasicBlock
from kornia.feature.loftr.loftr_module.transformer import LocalFeatureTransformer
from kornia.feature.loftr.utils.position_encoding import PositionEncodingSine
from torch import nn
from torch.nn import functional as F

from minima_core.matchers._semidense import Ids, similarity, windows

Size = Literal["full", "small"]
CHANNELS = {"full": (128, 196, 256), "small": (32, 28, 64)}  # at a half, at a quarter and at an eighth of the size
HEADS = (8, 7, 8)  # likewise
FINE = 2  # pixels between two features of the half size
WINDOW = 5  # of them along a side of the window around a cell's point
AT_ONCE = 1024  # matches that are refined together: 0.4 GB


class Backbone(nn.Module):
    """A residual network without the way back up."""

    def __init__(self, half: int, quarter: int, eighth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, half, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.layer1 = nn.Sequential(BasicBlock(half, half), BasicBlock(half, half))
        self.layer2 = nn.Sequential(BasicBlock(half, quarter, stride=2), BasicBlock(quarter, quarter))
        self.layer3 = nn.Sequential(BasicBlock(quarter, eighth, stride=2), BasicBlock(eighth, eighth))
        self.layer3_outconv = nn.Conv2d(eighth, eighth, 1, bias=False)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the features of (B, 1, H, W) images at an eighth, a quarter and a half of their size."""
        half = self.layer1(self.bn1(self.conv1(image)).relu())
        quarter = self.layer2(half)
        return self.layer3_outconv(self.layer3(quarter)), quarter, half


def _mlp(channels: int) -> nn.Sequential:
    layers = {"fc1": nn.Linear(2 * channels, 2 * channels), "act": nn.GELU(), "fc2": nn.Linear(2 * channels, channels)}
    return nn.Sequential(OrderedDict(layers))


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """Return (B, N, C) of queries (B, N, C) and of keys and values (B, P, C)."""
    q, k, v = (tokens.reshape(*tokens.shape[:2], heads, -1).transpose(1, 2) for tokens in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Places(nn.Module):
    """Adds to the features of a square window what stands for their places in it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pos_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, channels, bias=False))

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        """Take and return (M, P, C); places are (y, x) in [-1, 1]."""
        step = torch.linspace(-1, 1, math.isqrt(window.shape[1]), device=window.device)
        return window + self.pos_mlp(torch.cartesian_prod(step, step))


class Attention(nn.Module):
    """Attention among tokens."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.kv_proj = nn.Linear(channels, 2 * channels, bias=False)
        self.q_proj = nn.Linear(channels, channels, bias=False)
        self.merge = nn.Linear(channels, channels)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Take and return (M, N, C)."""
        key, value = self.kv_proj(tokens).chunk(2, -1)
        return self.merge(_attend(self.q_proj(tokens), key, value, self.heads))


class MutualAttention(nn.Module):
    """Attention between two windows, of the same similarities in either direction."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qk_proj = nn.Linear(channels, channels, bias=False)
        self.v_proj = nn.Linear(channels, channels, bias=False)
        self.merge = nn.Linear(channels, channels, bias=False)
        self.temperature = nn.Parameter(torch.zeros(1))  # in the published files; nothing uses it

    def forward(self, tokens0: torch.Tensor, tokens1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take and return (M, N, C) of either window."""
        key0, key1 = self.qk_proj(tokens0), self.qk_proj(tokens1)
        seen0 = _attend(key0, key1, self.v_proj(tokens1), self.heads)
        seen1 = _attend(key1, key0, self.v_proj(tokens0), self.heads)
        return self.merge(seen0), self.merge(seen1)


class WindowSelfAttention(nn.Module):
    """Features of a window look at each other and at the coarser ones behind them."""

    def __init__(self, channels: int, heads: int, coarser: nn.Module) -> None:
        super().__init__()
        self.mlp = _mlp(channels)
        self.gamma = nn.Parameter(torch.ones(channels))
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn = Attention(channels, heads)
        self.pos_embed = Places(channels)
        self.pos_embed_pre = coarser  # gives the coarser ones their places

    def forward(self, window: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
        """Take (M, P, C) and (M, Q, C) and return (M, P, C)."""
        tokens = torch.cat([self.pos_embed(window), self.pos_embed_pre(coarser)], 1)
        seen = self.attn(self.norm2(tokens))
        tokens = tokens + self.gamma * self.norm1(self.mlp(torch.cat([tokens, seen], -1)))
        return tokens[:, : window.shape[1]]


class WindowCrossAttention(nn.Module):
    """Features of the two windows of a match look at each other."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.mlp = _mlp(channels)
        self.cross_attn = MutualAttention(channels, heads)
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, window0: torch.Tensor, window1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take and return (M, P, C) of either image."""
        seen0, seen1 = self.cross_attn(self.norm1(window0), self.norm1(window1))
        return self._with(window0, seen0), self._with(window1, seen1)

    def _with(self, window: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        return window + self.gamma * self.norm2(self.mlp(torch.cat([window, seen], -1)))


class FineProcess(nn.Module):
    """From the windows of a match at three sizes to those of the finest, each knowing the other image's."""

    def __init__(self, half: int, quarter: int, eighth: int) -> None:
        super().__init__()
        self.conv_merge = nn.Sequential(
            nn.Conv2d(2 * eighth, quarter, 1, bias=False),
            nn.Conv2d(quarter, quarter, 3, padding=1, groups=quarter, bias=False),
            nn.BatchNorm2d(quarter),
        )
        self.out_conv_m = nn.Conv2d(quarter, quarter, 1, bias=False)
        self.out_conv_f = nn.Conv2d(half, half, 1, bias=False)
        self.self_attn_m = WindowSelfAttention(quarter, HEADS[1], nn.Identity())
        self.cross_attn_m = WindowCrossAttention(quarter, HEADS[1])
        self.self_attn_f = WindowSelfAttention(half, HEADS[0], Places(half))
        self.cross_attn_f = WindowCrossAttention(half, HEADS[0])
        self.down_proj_m_f = nn.Linear(quarter, half, bias=False)

    def cut(self, view: View, b_ids: torch.Tensor, cells: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what lies around the cells at an eighth (M, 1, C), a quarter (M, 9, C) and a half (M, 25, C')."""
        after = view.tokens.mT.reshape(view.cells.shape)
        maps = (
            self.conv_merge(torch.cat([after, view.cells], 1)),
            self.out_conv_m(view.quarter),
            self.out_conv_f(view.half),
        )
        return tuple(
            windows(features, b_ids, cells, view.cells.shape[3], stride=stride, size=size, margin=size // 2)
            for features, stride, size in zip(maps, (1, 2, 4), (1, 3, WINDOW), strict=True)
        )

    def forward(
        self, windows0: tuple[torch.Tensor, ...], windows1: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take what ``cut`` returns of either image and return (M, 25, C') features of the finest windows."""
        (cell0, quarter0, half0), (cell1, quarter1, half1) = windows0, windows1
        quarters = self.cross_attn_m(self.self_attn_m(quarter0, cell0), self.self_attn_m(quarter1, cell1))
        quarter0, quarter1 = (self.down_proj_m_f(quarter) for quarter in quarters)
        return self.cross_attn_f(self.self_attn_f(half0, quarter0), self.self_attn_f(half1, quarter1))


class Network(nn.Module):
    """The parts of XoFTR; what they do is in ``match_cells`` and ``refine``."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        half, quarter, eighth = CHANNELS[size]
        self.backbone = Backbone(half, quarter, eighth)
        self.pos_encoding = PositionEncodingSine(eighth)
        layers = {"layer_names": ["self", "cross"] * 4, "attention": "linear"}
        self.loftr_coarse = LocalFeatureTransformer({"d_model": eighth, "nhead": HEADS[2], **layers})
        self.coarse_matching = nn.ModuleDict({"final_proj": nn.Linear(eighth, eighth)})
        self.fine_process = FineProcess(half, quarter, eighth)
        hidden, last = nn.Linear(2 * half, 2 * half, bias=False), nn.Linear(2 * half, 4, bias=False)
        self.fine_matching = nn.ModuleDict(
            {"fine_proj": nn.Linear(half, half, bias=False), "subpixel_mlp": nn.Sequential(hidden, nn.ReLU(), last)}
        )


@dataclass(frozen=True)
class View:
    """What the first stage makes of the images of one side of a batch; L cells an image.

    Attributes:
        tokens: (B, L, C) cells, after the transformer.
        cells: (B, C, H / 8, W / 8) cells, before it.
        quarter: (B, C', H / 4, W / 4) features.
        half: (B, C'', H / 2, W / 2) features.
    """

    tokens: torch.Tensor
    cells: torch.Tensor
    quarter: torch.Tensor
    half: torch.Tensor


@dataclass(frozen=True)
class Refined:
    """The second stage of M matches.

    Attributes:
        offset0: (M, 2) pixels from the point of the cell in image 0 to the match.
        offset1: likewise in image 1.
        scores: (M,) probability of the two features of the windows that were chosen.
    """

    offset0: torch.Tensor
    offset1: torch.Tensor
    scores: torch.Tensor


def match_cells(net: Network, image0: torch.Tensor, image1: torch.Tensor) -> tuple[View, View, torch.Tensor]:
    """Return what the first stage makes of (B, 1, H, W) gray images 0 and 1, and (B, L, N) similarities of cells."""
    pyramid0, pyramid1 = (net.backbone(_standardised(image)) for image in (image0, image1))
    placed = (net.pos_encoding(cells).flatten(2).mT for cells in (pyramid0[0], pyramid1[0]))
    tokens0, tokens1 = net.loftr_coarse(*placed)
    projected = (net.coarse_matching["final_proj"](tokens) for tokens in (tokens0, tokens1))
    return View(tokens0, *pyramid0), View(tokens1, *pyramid1), similarity(*projected)


def _standardised(image: torch.Tensor) -> torch.Tensor:
    spread, mean = torch.std_mean(image, (2, 3), keepdim=True)
    return (image - mean) / (spread + 1e-6)


def either_way(similarities: torch.Tensor, threshold: float, inner0: torch.Tensor, inner1: torch.Tensor) -> Ids:
    """Return the matches that are the most probable for one of their cells, at more than ``threshold``.

    A cell may have several: in image 1 all that look for it. (L,) and (N,) say which cells may be matched.
    """
    found = torch.zeros_like(similarities, dtype=torch.bool)
    for axis in (1, 2):
        probability = similarities.softmax(axis)
        found |= (probability > threshold) & (probability == probability.amax(axis, keepdim=True))
    b_ids, i_ids, j_ids = torch.where(found & inner0[:, None] & inner1)
    return b_ids, i_ids, j_ids


def refine(net: Network, view0: View, view1: View, ids: Ids) -> Refined:
    """Return which features of the windows around matched cells match best, and where between them."""
    b_ids, i_ids, j_ids = ids
    cuts = net.fine_process.cut(view0, b_ids, i_ids), net.fine_process.cut(view1, b_ids, j_ids)
    refined = []
    for some in torch.split(torch.arange(len(b_ids), device=b_ids.device), AT_ONCE):
        windows0, windows1 = (tuple(part[some] for part in cut) for cut in cuts)
        refined.append(_best(net.fine_matching, *net.fine_process(windows0, windows1)))
    return Refined(*(torch.cat(values) for values in zip(*refined, strict=True)))


def _best(heads: Any, window0: torch.Tensor, window1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the offsets and the scores of (M, 25, C) windows.

    The original makes up a match, of score 1, where no window of a batch has one above its threshold; this does not.
    """
    logits = similarity(heads["fine_proj"](window0), heads["fine_proj"](window1))
    scores, pair = (logits.softmax(1) * logits.softmax(2)).flatten(1).max(1)
    chosen = pair // WINDOW**2, pair % WINDOW**2
    m = torch.arange(len(pair), device=pair.device)
    features = torch.cat([window[m, place] for window, place in zip((window0, window1), chosen, strict=True)], 1)
    between = heads["subpixel_mlp"](features).float().tanh() / 2  # of a feature, to either side
    whole = torch.cat([part for place in chosen for part in (place % WINDOW, place // WINDOW)]).reshape(4, -1).T
    offset0, offset1 = (FINE * (whole - WINDOW // 2 + between)).chunk(2, 1)
    return offset0, offset1, scores
