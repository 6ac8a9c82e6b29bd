"""Random tones: what an unknown sensor might make of a picture's brightness, drawn anew each time."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

KNOTS = 6  # of the random curve; between them it is straight
BLUR = (0.3, 1.6)  # deviation in pixels
NOISE = (0.0, 0.06)  # deviation, of a range of 1


def redraw_tones(images: torch.Tensor, numbers: np.ndarray, count: int, random: np.random.Generator) -> torch.Tensor:
    """Return (N, 3, H, W) images in [0, 1] as gray ones: a random mix of channels, curve, blur and noise for each.

    The curve need not rise: it may turn tones round or fold two into one, as a thermal camera or a scanner does. The
    images are those of some (N,) ``numbers`` out of ``count``; what is drawn for one does not depend on which others
    are here.
    """
    device = images.device

    def drawn(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.from_numpy(random.uniform(low, high, (count, *shape))[numbers].astype(np.float32)).to(device)

    mix = drawn(0.05, 1, 3)
    gray = torch.einsum("nchw,nc->nhw", images, mix / mix.sum(1, keepdim=True))
    place = gray.clamp(0, 1) * (KNOTS - 1)
    left = place.long().clamp(max=KNOTS - 2)
    curve = drawn(0, 1, KNOTS)
    a, b = (curve.gather(1, (left + k).flatten(1)).view_as(gray) for k in (0, 1))
    toned = _blur(a + (b - a) * (place - left), drawn(*BLUR))
    rough = torch.Generator().manual_seed(int(random.integers(2**62)))
    noise = torch.randn(count, *toned.shape[1:], generator=rough)[torch.from_numpy(numbers)]
    noise = noise.to(device) * drawn(*NOISE, 1, 1)
    return (toned + noise).clamp(0, 1)[:, None].expand(-1, 3, -1, -1)


def _blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur (N, H, W) images, each with its own Gaussian of deviation (N,)."""
    radius = 4
    at = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-0.5 * (at / sigma[:, None]) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    padded = F.pad(images[None], (radius,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel[:, None, None, :], groups=len(images))
    return F.conv2d(rows, kernel[:, None, :, None], groups=len(images))[0]
