"""The Paint Transformer's stroke predictor: what to paint on a canvas so that it looks more like a target."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pydantic import Field, ValidationError, model_validator
from torch import nn

from minima_core.config import Section
from minima_core.errors import WeightsError
from minima_core.io.weights import read_metadata

PATCH = 32  # pixels; the side of what the network looks at
GRID = PATCH // 4  # tokens a side
SHAPE = 5  # numbers that make a stroke: x, y, w, h, angle
CONFIG = "config"  # the entry of a weight file's metadata that holds the size of its network
_TYPICAL = (0.5, 0.5, 0.25, 0.25, 0.5)  # what an untrained network proposes: the middle of the patch, a quarter as wide


class PainterSize(Section):
    """How large a network is; the published one has 8 strokes, 256 features, 8 heads and 3 + 3 layers."""

    strokes: int = Field(gt=0)  # proposed for each patch
    hidden: int = Field(gt=0, multiple_of=8)
    heads: int = Field(gt=0)
    encoder_layers: int = Field(gt=0)
    decoder_layers: int = Field(gt=0)

    @model_validator(mode="after")
    def _divisible(self) -> PainterSize:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


PUBLISHED_SIZE = PainterSize(strokes=8, hidden=256, heads=8, encoder_layers=3, decoder_layers=3)
TINY_SIZE = PainterSize(strokes=8, hidden=16, heads=2, encoder_layers=1, decoder_layers=1)


class Painter(nn.Module):
    """Proposes strokes for patches (Liu et al., ICCV 2021; arXiv 2108.03798).

    Parameters are named as in the published file. There is no dropout: the data that it is trained on never repeat, and
    at inference it would do nothing.
    """

    def __init__(self, size: PainterSize) -> None:
        super().__init__()
        self.size = size
        hidden = size.hidden
        self.enc_img = _patch_encoder(hidden // 2)
        self.enc_canvas = _patch_encoder(hidden // 2)
        self.conv = nn.Conv2d(hidden, hidden, 1)
        self.transformer = nn.Transformer(
            hidden, size.heads, size.encoder_layers, size.decoder_layers, 8 * hidden, dropout=0.0, batch_first=True
        )
        self.linear_param = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, SHAPE)
        )
        self.linear_decider = nn.Linear(hidden, 1)
        self.query_pos = nn.Parameter(torch.rand(size.strokes, hidden))
        self.row_embed = nn.Parameter(torch.rand(GRID, hidden // 2))
        self.col_embed = nn.Parameter(torch.rand(GRID, hidden // 2))

    def forward(self, target: torch.Tensor, canvas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the strokes that each patch wants.

        Args:
            target: (N, 3, 32, 32) what the patches should look like, RGB in [0, 1].
            canvas: (N, 3, 32, 32) what they look like.

        Returns:
            (N, strokes, 5) x, y, w, h as shares of the patch and the angle in units of pi, none of them bounded; and
            (N, strokes, 1) logits of whether a stroke is to be drawn. Colours are not predicted.
        """
        features = self.conv(torch.cat([self.enc_img(target), self.enc_canvas(canvas)], 1))
        columns = self.col_embed[None].expand(GRID, -1, -1)
        rows = self.row_embed[:, None].expand(-1, GRID, -1)
        position = torch.cat([columns, rows], 2).flatten(0, 1)
        queries = self.query_pos[None].expand(len(target), -1, -1)
        found = self.transformer(position + features.flatten(2).transpose(1, 2), queries)
        return self.linear_param(found), self.linear_decider(found)


def _patch_encoder(width: int) -> nn.Sequential:
    """Return a network from (N, 3, 32, 32) to (N, width, 8, 8)."""
    layers: list[nn.Module] = []
    channels = 3
    for out, stride in ((width // 4, 1), (width // 2, 2), (width, 2)):
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, out, 3, stride), nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    return nn.Sequential(*layers)


def random_painter(size: PainterSize, seed: int) -> Painter:
    """Return an untrained network; equal seeds give equal weights, and torch's global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        painter = Painter(size)
    with torch.no_grad():
        dict(painter.named_parameters())["linear_param.4.bias"].copy_(torch.tensor(_TYPICAL))
    return painter.eval()


def size_of(path: Path) -> PainterSize:
    """Return the size of the network whose weights a .safetensors file holds.

    Raises:
        WeightsError: if the file does not say it.
    """
    try:
        return PainterSize.model_validate(json.loads(read_metadata(path)[CONFIG]))
    except (KeyError, ValueError, ValidationError):
        raise WeightsError(
            f"{path} does not say which network it is for; write it with `python -m tasks.pretrain_painter`"
        ) from None
