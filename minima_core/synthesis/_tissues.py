"""Tissues, their relaxation times and what a spin echo shows of them, and their uptake of a tracer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import cv2
import numpy as np
from pydantic import Field
from scipy.interpolate import PchipInterpolator

from minima_core.data.tissues import TISSUE_NAMES
from minima_core.errors import DataError, redo

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

# Hounsfield units, rounded from the ranges in textbooks
ATTENUATION = {
    "air": -1000.0,
    "bone": 700.0,
    "fluid": 8.0,
    "gray matter": 38.0,
    "white matter": 29.0,
    "fat": -90.0,
    "muscle": 50.0,
    "liver": 60.0,
}

# of fluorodeoxyglucose, against the gray matter of a resting brain; rough means of what textbooks show
UPTAKE = {
    "air": 0.0,
    "bone": 0.12,
    "fluid": 0.04,
    "gray matter": 1.0,
    "white matter": 0.28,
    "fat": 0.08,
    "muscle": 0.18,
    "liver": 0.45,
}

SPREAD = 0.2  # by which the signals of tissues that are known differ from one head to the next, either way

Count = Annotated[int, Field(ge=4, le=len(TISSUES))]  # of the classes that a picture's gray is cut into


def spin_echo(tissue: Tissue, *, repetition: float, echo: float) -> float:
    """Return the signal of a spin echo with these times in milliseconds; 1 is water at full relaxation."""
    return float(tissue.density * (1 - np.exp(-repetition / tissue.t1)) * np.exp(-echo / tissue.t2))


def turns(values: np.ndarray) -> int:
    """Return how often a sequence changes from rising to falling or back."""
    steps = np.sign(np.diff(values))
    steps = steps[steps != 0]
    return int((steps[1:] != steps[:-1]).sum())


def spin_echoes(repetition: float, echo: float) -> dict[str, float]:
    """Return the signal of every tissue."""
    return {name: spin_echo(tissue, repetition=repetition, echo=echo) for name, tissue in TISSUES.items()}


def tomogram(level: float, width: float) -> dict[str, float]:
    """Return what X-rays show of every tissue through a window of Hounsfield units: 0 below it, 1 above."""
    return {name: float(np.clip((value - level) / width + 0.5, 0, 1)) for name, value in ATTENUATION.items()}


def of_tissues(
    tissue: np.ndarray, gray: np.ndarray, signals: Mapping[str, float], texture: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the (H, W) float32 signal of a picture whose (H, W) uint8 tissues are known, the strongest about 1.

    Each tissue's signal is drawn about its own. Inside a tissue it follows ``gray``, or goes against it, by a share
    ``texture`` of how far gray is from the tissue's mean.

    Raises:
        DataError: if the map holds an id that is not known.
    """
    if (highest := int(tissue.max())) >= len(TISSUE_NAMES):
        raise DataError(
            f"a map of tissues holds id {highest}, {len(TISSUE_NAMES) - 1} is the highest known; "
            f"make the raw scenes again with {redo('download')}"
        )
    drawn = np.array([signals[name] for name in TISSUE_NAMES]) * rng.uniform(1 - SPREAD, 1 + SPREAD, len(TISSUE_NAMES))
    count = np.maximum(np.bincount(tissue.ravel(), minlength=len(TISSUE_NAMES)), 1)
    mean = np.bincount(tissue.ravel(), gray.ravel(), len(TISSUE_NAMES)) / count
    detail = (gray - mean.astype(np.float32).take(tissue)) / 255 * (tissue != TISSUE_NAMES.index("air"))
    share = np.float32(texture * rng.choice([-1, 1]))
    return np.clip((drawn / drawn.max()).astype(np.float32).take(tissue) + share * detail, 0, 1)


def assign(count: int, signals: Mapping[str, float], rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Return the tissues of ``count`` gray classes, dark to bright, and their (count,) signals, the strongest 1.

    The first of several random assignments whose signal turns at least twice over the gray range and whose neighbouring
    classes can be told apart; where none does, the one that comes nearest to it.
    """
    names, strengths = list(signals), np.array(list(signals.values()))

    def clarity(chosen: np.ndarray) -> tuple[bool, float]:
        found = strengths[chosen] / strengths[chosen].max()
        return turns(found) >= TURNS, min(float(np.abs(np.diff(found)).min()), APART)

    best = max((rng.permutation(len(names))[:count] for _ in range(TRIES)), key=clarity)
    return [names[k] for k in best], strengths[best] / strengths[best].max()


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


def signal(
    gray: np.ndarray,
    tissue: np.ndarray | None,
    signals: Mapping[str, float],
    count: int,
    texture: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, list[str]]:
    """Return the (H, W) float32 signal of a picture, and the tissues that its gray classes were taken for.

    Where its ``tissue`` map is known, its own tissues are shown, and the list is empty.
    """
    if tissue is not None:
        return of_tissues(tissue, gray, signals, texture, rng), []
    tissues, strengths = assign(count, signals, rng)
    return cv2.LUT(gray, curve(gray, strengths, texture)), tissues
