"""Contrast limited adaptive histogram equalisation with the numbers of kornia before 0.9."""

from __future__ import annotations

import torch

TILES = 8  # along each side
LEVELS = 256


def equalise(images: torch.Tensor, clip: float) -> torch.Tensor:
    """Return (B, C, S, S) float32 in [0, 1], each channel equalised; ``images`` are in [0, 1], S a multiple of 16.

    A pixel is mapped by the tables of the four tiles around it, weighted by how near their centres are.

    Args:
        images: the channels.
        clip: how many times its fair share of a tile's pixels a grey level may count for.
    """
    batch, channels, side, _ = images.shape
    tile = side // TILES
    tables = _tables(images, tile, clip)
    # kornia counts with 256 bins over [0, 1] but looks up the truncated multiple of 255
    entry = (images * (LEVELS - 1)).long()
    entry += torch.arange(batch * channels, device=images.device).view(batch, channels, 1, 1) * (TILES**2 * LEVELS)
    before, after, weight = _between(side, tile, images.device)

    def mapped(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        return tables[entry + (rows[:, None] * TILES + columns) * LEVELS]

    top, bottom = (torch.lerp(mapped(rows, after), mapped(rows, before), weight) for rows in (before, after))
    return torch.lerp(bottom, top, weight[:, None]) / (LEVELS - 1)


def _tables(images: torch.Tensor, tile: int, clip: float) -> torch.Tensor:
    """Return the (B * C * tiles * LEVELS) table of grey levels to grey levels, tiles row by row."""
    pixels = tile * tile
    tiles = images.unfold(2, tile, tile).unfold(3, tile, tile).reshape(-1, pixels)
    bins = (tiles * LEVELS).long().clamp(max=LEVELS - 1)
    offsets = torch.arange(len(bins), device=bins.device)[:, None] * LEVELS
    counts = torch.bincount((bins + offsets).flatten(), minlength=len(bins) * LEVELS).view(-1, LEVELS)
    counts = counts.clamp(max=max(int(clip * pixels // LEVELS), 1))
    clipped = pixels - counts.sum(1, keepdim=True)
    counts = counts + clipped // LEVELS + (torch.arange(LEVELS, device=bins.device) < clipped % LEVELS)
    scaled = counts.cumsum(1).float() * ((LEVELS - 1) / pixels)
    return scaled.clamp(0, LEVELS - 1).floor().flatten()


def _between(side: int, tile: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the tile before and after each of (S,) pixels and the (S,) weight of the one before.

    The outer half of the outermost tiles has one tile only, which is then both. Weights run from 1 at the first pixel
    between two centres to 0 at the last.
    """
    position = torch.arange(side, device=device) - tile // 2
    before = torch.div(position, tile, rounding_mode="floor")
    weight = 1 - (position - before * tile).float() / (tile - 1)
    return before.clamp(0, TILES - 1), (before + 1).clamp(0, TILES - 1), weight
