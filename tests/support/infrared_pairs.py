"""A made-up world of discs whose warmth is their redness, as aligned pictures in the layouts of the public sets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def settings(**changes):
    """Return small settings of the section infrared_training."""
    given = {
        "weights": "random",
        "licence": "CC0-1.0",
        "rank": 4,
        "alpha": 8,
        "lr": 0.01,
        "steps": 6,
        "batch": 2,
        "side": 64,
        "drop": 0.05,
        "clip": 1.0,
        "precision": "float32",
        "validation_samples": 4,
        "validate_every": 3,
        "checkpoint_every": 2,
        "log_every": 1,
        "max_skipped": 0,
        "threads": 1,
    }
    return given | changes


def draw_pair(generator, size=(96, 80)):
    """Return a visible and an infrared picture, (H, W, 3) uint8 RGB."""
    visible = np.full((size[1], size[0], 3), generator.integers(20, 90, 3), np.uint8)
    infrared = np.full_like(visible, 40)
    for _ in range(4):
        centre, radius = tuple(int(v) for v in generator.integers(0, size)), int(generator.integers(6, 20))
        colour = tuple(int(v) for v in generator.integers(0, 256, 3))
        cv2.circle(visible, centre, radius, colour, -1)
        cv2.circle(infrared, centre, radius, (colour[0],) * 3, -1)
    return visible, infrared


def write(root: Path, folders: dict[str, int], suffix: str, seed: int = 0) -> Path:
    """Write numbered pairs; ``folders`` says how many for each ``VISIBLE:INFRARED`` pair of folders."""
    generator = np.random.default_rng(seed)
    for both, count in folders.items():
        for k in range(count):
            for folder, picture in zip(both.split(":"), draw_pair(generator), strict=True):
                (root / folder).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / folder / f"{k:05}{suffix}"), picture[..., ::-1])
    return root


def llvip(root: Path, train: int = 8, test: int = 4) -> Path:
    """Write pairs in LLVIP's layout."""
    return write(root, {"visible/train:infrared/train": train, "visible/test:infrared/test": test}, ".jpg")


def m3fd(root: Path, count: int = 8) -> Path:
    """Write pairs in M3FD's layout."""
    return write(root, {"Vis:Ir": count}, ".png", seed=1)
