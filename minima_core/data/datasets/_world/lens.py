"""What a camera does to light: haze, exposure, white balance, tone curve, vignette and noise, drawn anew a view."""

from __future__ import annotations

import numpy as np

from minima_core.data.datasets._world.render import Picture

HAZE = np.array([205.0, 212.0, 220.0], np.float32)
LEVELS = 4096  # steps of the tone curve
CLEAR = 140.0  # metres over which haze takes two thirds


def photograph(picture: Picture, random: np.random.Generator) -> np.ndarray:
    """Return (H, W, 3) uint8: two photographs of the same wall differ as those of two cameras do."""
    veil = 1 - np.exp(-picture.depth.astype(np.float32) / CLEAR)[..., None]
    scene = picture.albedo * (1 - veil) + HAZE * veil
    ground = picture.depth > 0
    meter = float(np.median(scene[ground].mean(-1))) if ground.any() else 110.0
    exposure = (118 / max(meter, 25.0)) ** 0.7 * np.exp(random.normal(0, 0.13))
    balance = np.exp(random.normal(0, 0.035, 3)).astype(np.float32)
    toned = _curve(random)[np.clip(scene * (balance * exposure * LEVELS / 512), 0, LEVELS - 1).astype(np.int32)]
    h, w = picture.depth.shape
    y, x = np.linspace(-1, 1, h, dtype=np.float32)[:, None], np.linspace(-1, 1, w, dtype=np.float32)[None]
    vignette = 1 - np.float32(random.uniform(0.02, 0.16)) * (x**2 + y**2)
    spread = random.uniform(0.8, 2.6)
    gray = random.standard_normal((h, w), dtype=np.float32)
    # the channels' noises: one field, moved; three fields would take three times as long to draw
    grain = np.stack([gray, np.roll(gray, (h // 3, w // 4), (0, 1)), np.roll(gray, (h // 5, -w // 3), (0, 1))], -1)
    shot = np.float32(spread) * (0.5 + np.sqrt(toned / 255))
    return np.clip(toned * vignette[..., None] + grain * shot, 0, 255).round().astype(np.uint8)


def _curve(random: np.random.Generator) -> np.ndarray:
    """Return a tone curve (LEVELS,) over [0, 512): a gamma, and a shoulder where others would cut."""
    value = (np.arange(LEVELS, dtype=np.float32) * (512 / LEVELS / 255)) ** np.float32(np.exp(random.normal(0, 0.1)))
    return np.where(value > 0.8, 0.8 + 0.2 * np.tanh((value - 0.8) / 0.2), value).astype(np.float32) * 255
