"""Random generators made from a seed and what they are for; there is no global seed and no clock."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *what_for: str | int) -> int:
    """Return a 64-bit seed that depends on ``seed`` and on every part of ``what_for``, in order."""
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in what_for)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def rng(seed: int, *what_for: str | int) -> np.random.Generator:
    """Return numpy's generator for ``what_for`` (for example ``rng(seed, image_id, "event")``)."""
    return np.random.default_rng(derive(seed, *what_for))
