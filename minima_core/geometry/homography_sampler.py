"""Random homographies as the published benchmarks of DIODE and DSEC draw them (spec/evaluation.md section 4.1)."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

MARGIN = 0.1  # of the image's sides, around the patch that is moved
PERSPECTIVE = 0.05  # of the sides
SCALING, SCALES = 0.05, 5
ROTATION, ANGLES = np.deg2rad(10), 25
Random = np.random.Generator | np.random.RandomState


def sample_homography(size: tuple[int, int], random: Random) -> np.ndarray:
    """Return a (3, 3) float64 homography within an image of ``size`` = (W, H): perspective, scale, shift and rotation.

    It maps a moved patch, which lies inside the image, back to the middle eight tenths of the sides. From numpy's
    legacy ``RandomState`` the draws are those of the published benchmarks.
    """
    low, high = MARGIN, 1 - MARGIN
    still = np.array([[low, low], [low, high], [high, high], [high, low]])
    scale = np.array(size, dtype=np.float64)
    moved = _move(still, random)
    forward = cv2.getPerspectiveTransform((still * scale).astype(np.float32), (moved * scale).astype(np.float32))
    return np.linalg.inv(forward)


def published_homography(size: tuple[int, int], path: str) -> np.ndarray:
    """Return the (3, 3) homography that the published benchmarks draw for a file, by its path as their scripts join it.

    The path begins with their data folder (``./data/DIODE/...``), wherever the data really are.
    """
    seed = int(hashlib.sha256(path.encode()).hexdigest(), 16) % 2**32
    return sample_homography(size, np.random.RandomState(seed))


def _move(patch: np.ndarray, random: Random) -> np.ndarray:
    """Return the four corners (unit square, x and y) after the four steps; the order of the draws is the published."""
    y = _normal(0, PERSPECTIVE, 1, random)[0]
    left, right = _normal(0, PERSPECTIVE, 1, random)[0], _normal(0, PERSPECTIVE, 1, random)[0]
    moved = patch + np.array([[left, y], [left, -y], [right, y], [right, -y]])

    scales = np.concatenate([[1.0], _normal(1, SCALING, SCALES, random)])
    centre = moved.mean(0)
    moved = _any_inside((moved - centre) * scales[:, None, None] + centre, random)

    low, high = moved.min(0), (1 - moved).min(0)
    moved = moved + np.array([random.uniform(-low[0], high[0]), random.uniform(-low[1], high[1])])

    angles = np.concatenate([[0.0], np.linspace(-ROTATION, ROTATION, ANGLES)])
    c, s = np.cos(angles), np.sin(angles)
    rows = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)  # for points written as rows
    centre = moved.mean(0)
    return _any_inside((moved - centre) @ rows + centre, random)


def _normal(mean: float, amplitude: float, n: int, random: Random) -> np.ndarray:
    """Draw ``n`` numbers within ``amplitude`` of the mean, which is two deviations."""
    from scipy.stats import truncnorm  # takes a second to import, and few need it

    return np.asarray(truncnorm(-2, 2, loc=mean, scale=amplitude / 2).rvs(n, random_state=random))


def _any_inside(patches: np.ndarray, random: Random) -> np.ndarray:
    """Return one of the (N, 4, 2) patches that lie in the unit square; the first always does."""
    inside = np.flatnonzero(((patches >= 0) & (patches < 1)).all((1, 2)))
    return np.asarray(patches[random.choice(inside)])
