"""Tissues, their relaxation times and what a spin echo shows of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

TURNS = 2  # least number of times that signal turns over the gray range
APART = 0.08  # signal between neighbouring classes below which a border would be lost
TRIES = 64  # assignments that are looked at for such a one
INNER = 0.5  # of the way from a class's centre to its border on which it keeps its own signal
EVEN = 0.2  # weight that lies evenly on all levels of gray, so that no class is empty
ROUNDS = 8  # of k-means


class Tissue(NamedTuple):
    """Proton density against water, and relaxation times in milliseconds at 1.5 tesla."""

    density: float
    t1: float
    t2: float


# rounded means of the ranges in textbooks (e.g. Nishimura, Principles of Magnetic Resonance Imaging, 2010)
TISSUES = {
    "air": Tissue(0.0, 1000, 100),
    "bone": Tissue(0.1, 600, 10),
    "fluid": Tissue(1.0, 4000, 1500),
    "gray matter": Tissue(0.82, 950, 100),
    "white matter": Tissue(0.7, 600, 80),
    "fat": Tissue(0.9, 250, 60),
    "muscle": Tissue(0.8, 900, 47),
    "liver": Tissue(0.75, 500, 43),
}


def spin_echo(tissue: Tissue, *, repetition: float, echo: float) -> float:
    """Return the signal of a spin echo with these times in milliseconds; 1 is water at full relaxation."""
    return float(tissue.density * (1 - np.exp(-repetition / tissue.t1)) * np.exp(-echo / tissue.t2))


def turns(values: np.ndarray) -> int:
    """Return how often a sequence changes from rising to falling or back."""
    steps = np.sign(np.diff(values))
    steps = steps[steps != 0]
    return int((steps[1:] != steps[:-1]).sum())


def assign(count: int, *, repetition: float, echo: float, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Return the tissues of ``count`` gray classes, dark to bright, and their (count,) signals, at most 1.

    The first of several random assignments whose signal turns at least twice over the gray range and whose neighbouring
    classes can be told apart; where none does, the one that comes nearest to it.
    """
    names = list(TISSUES)
    signals = np.array([spin_echo(TISSUES[name], repetition=repetition, echo=echo) for name in names])

    def clarity(chosen: np.ndarray) -> tuple[bool, float]:
        found = signals[chosen] / signals[chosen].max()
        return turns(found) >= TURNS, min(float(np.abs(np.diff(found)).min()), APART)

    best = max((rng.permutation(len(names))[:count] for _ in range(TRIES)), key=clarity)
    return [names[k] for k in best], signals[best] / signals[best].max()


def classes(gray: np.ndarray, count: int) -> np.ndarray:
    """Return (count,) rising centres of the classes of uint8 gray: k-means, begun half way from even to quantiles."""
    weight = np.bincount(gray.ravel(), minlength=256) * ((1 - EVEN) / gray.size) + EVEN / 256
    levels = np.arange(256.0)
    even = (np.arange(count) + 0.5) / count
    centres = (np.interp(even, np.cumsum(weight), levels) + 255 * even) / 2
    for _ in range(ROUNDS):
        label = np.searchsorted((centres[1:] + centres[:-1]) / 2, levels)
        centres = np.bincount(label, weight * levels, count) / np.bincount(label, weight, count)
    return centres


def curve(gray: np.ndarray, signals: np.ndarray, texture: float) -> np.ndarray:
    """Return a (256,) float32 table from uint8 gray to signal, smooth, with as many turns as ``signals`` has.

    Inside a class of the (H, W) picture signal follows gray gently, as a share ``texture`` of half the way to its
    neighbours; between two it passes over smoothly and without overshoot.
    """
    centres = classes(gray, len(signals))
    border = np.concatenate([[0], (centres[1:] + centres[:-1]) / 2, [255]])
    at = np.stack([centres + INNER * (border[:-1] - centres), centres + INNER * (border[1:] - centres)], -1).ravel()
    before, after = np.concatenate([signals[:1], signals[:-1]]), np.concatenate([signals[1:], signals[-1:]])
    share = texture / 2
    values = np.stack([signals + share * (before - signals), signals + share * (after - signals)], -1).ravel()
    return PchipInterpolator(at, values)(np.clip(np.arange(256), at[0], at[-1])).astype(np.float32)
