"""How much there is to see in an image: contrast, entropy, saturation, and colours that should not be there."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np


def contrast(image: np.ndarray) -> dict[str, float]:
    """Return what the histogram of an (H, W, 3) uint8 image's gray values says.

    ``std`` is their standard deviation in gray levels, ``entropy`` the Shannon entropy of the 256-bin histogram in
    bits (0 to 8), ``saturated`` the share of pixels that are fully black or fully white.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    share = np.bincount(gray.ravel(), minlength=256) / gray.size
    seen = share[share > 0]
    return {
        "std": float(gray.std()),
        "entropy": float(-(seen * np.log2(seen)).sum()) + 0.0,  # + 0.0 turns the -0.0 of a flat image into 0.0
        "saturated": float(share[0] + share[255]),
    }


def off_palette(image: np.ndarray, palette: Sequence[Sequence[int]]) -> float:
    """Return the share of pixels of an (H, W, 3) uint8 image whose colour is none of the RGB triples in ``palette``."""
    packed = _pack(image.reshape(-1, 3))
    allowed = _pack(np.asarray(palette, dtype=np.uint8).reshape(-1, 3))
    return float(1.0 - np.isin(packed, allowed).mean())


def _pack(colours: np.ndarray) -> np.ndarray:
    wide = colours.astype(np.uint32)
    return wide[:, 0] << 16 | wide[:, 1] << 8 | wide[:, 2]
