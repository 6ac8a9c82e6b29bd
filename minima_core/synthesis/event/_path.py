"""The path of a camera between two poses, and where the points of a picture go along it."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


class Path:
    """A screw motion at constant speed: the identity at 0, ``T_0to1`` at 1, and as far back at -1."""

    def __init__(self, T_0to1: np.ndarray) -> None:
        self.turn = Rotation.from_matrix(T_0to1[:3, :3]).as_rotvec()
        self.velocity = np.linalg.solve(_mean_rotation(self.turn), T_0to1[:3, 3])

    def at(self, s: float) -> np.ndarray:
        """Return (4, 4): the first camera to the camera at ``s`` of the path."""
        T = np.eye(4)
        T[:3, :3] = Rotation.from_rotvec(s * self.turn).as_matrix()
        T[:3, 3] = _mean_rotation(s * self.turn) @ (s * self.velocity)
        return T


def _mean_rotation(turn: np.ndarray) -> np.ndarray:
    """Return the (3, 3) mean of the rotations from none to ``turn``, (3,) radians: the left Jacobian of SO(3)."""
    angle = float(np.linalg.norm(turn))
    x, y, z = turn
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    if angle < 1e-4:  # below, the closed form loses its digits
        return np.eye(3) + cross / 2
    return np.eye(3) + (1 - np.cos(angle)) / angle**2 * cross + (angle - np.sin(angle)) / angle**3 * cross @ cross


def project(points: np.ndarray, K: np.ndarray, T: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y in pixels and the depth over what it was, (N,) each, in the camera at ``T``.

    ``points`` are (4, N): x, y, 1 and inverse depth in the first camera. Where the depth is not positive, the point is
    behind the camera and x and y mean nothing.
    """
    P = np.hstack([K @ T[:3, :3] @ np.linalg.inv(K), K @ T[:3, 3:]])
    x, y, depth = P.astype(points.dtype) @ points
    with np.errstate(divide="ignore", invalid="ignore"):
        return x / depth, y / depth, depth


def displacement(points: np.ndarray, K: np.ndarray, path: Path, span: float) -> np.ndarray:
    """Return how many pixels each of (4, N) points travels over ``span`` of the path, centred on the first camera."""
    (x0, y0, before), (x1, y1, after) = (project(points, K, path.at(s)) for s in (-span / 2, span / 2))
    return np.where((before > 0) & (after > 0), np.hypot(x1 - x0, y1 - y0), np.inf)
