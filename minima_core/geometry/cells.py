"""The grid of cells that semi-dense matchers divide an image into, and the pixels that cells stand for.

Cell (x, y) stands for the point (CELL x, CELL y) counted from the image's corner, as the published networks were
trained; in this project's pixels that is half a pixel less.
"""

from __future__ import annotations

import torch

CELL = 8  # pixels along a side
ORIGIN = -0.5  # pixel that the first cell stands for


def cell_points(h: int, w: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the (h * w, 2) pixels that cells stand for, row by row."""
    return grid_points(h, w, step=CELL, origin=ORIGIN, device=device)


def grid_points(h: int, w: int, *, step: int, origin: float, device: torch.device | str) -> torch.Tensor:
    """Return the (h * w, 2) pixels of a grid, row by row."""
    y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    return step * torch.stack([x, y], -1).reshape(-1, 2).float() + origin
