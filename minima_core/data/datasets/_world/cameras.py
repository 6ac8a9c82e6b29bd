"""Where a photographer would stand in a town: groups of views of the same thing from different places."""

from __future__ import annotations

import numpy as np

from minima_core.data.datasets._world.render import Mesh, glance
from minima_core.data.datasets._world.scenery import Town

GROUP = 7  # views that look at the same thing
STEP_ASIDE = 0.65  # share of them taken a step from another one
TRIES = 80
NEAREST = 1.1  # metres
CROWDED = 3.0  # metres; half of the picture is at least as far away


def place_cameras(
    town: Town, mesh: Mesh, random: np.random.Generator, *, views: int, size: tuple[int, int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return ``views`` cameras (K, T_w2c): from outside all obstacles, with something worth matching in the picture."""
    cameras: list[tuple[np.ndarray, np.ndarray]] = []
    order = random.permutation(len(town.subjects))
    while len(cameras) < views:
        group, member = divmod(len(cameras), GROUP)
        subject = town.subjects[int(order[group % len(order)])]
        # a step aside from an earlier view of the group, or a walk to somewhere else
        start = None
        if member and random.random() < STEP_ASIDE:
            _, T_w2c = cameras[group * GROUP + int(random.integers(member))]
            start = -T_w2c[:3, :3].T @ T_w2c[:3, 3]
        cameras.append(_camera(town, mesh, random, subject, start, size))
    return cameras


def _camera(
    town: Town,
    mesh: Mesh,
    random: np.random.Generator,
    subject: np.ndarray,
    start: np.ndarray | None,
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Return one camera that looks at ``subject``; of the tries the first good one, else the least bad."""
    best, least = None, np.inf
    for _ in range(TRIES):
        if start is None:
            place = np.array([random.uniform(-0.96, 0.96) * side for side in town.half])
        else:
            place = start[:2] + random.normal(0, 1.5, 2)
        distance = float(np.linalg.norm(place - subject[:2]))
        if not 2.5 < distance < 22 or not town.free(place, 0.5):
            continue
        height = random.uniform(1.45, 1.95) if random.random() < 0.75 else random.uniform(2.5, 6.0)
        target = subject + random.normal(0, [0.9, 0.9, 0.4])
        camera = (_intrinsics(random, size), _look(np.append(place, height), target, np.radians(random.normal(0, 2.5))))
        badness = _badness(mesh, camera, distance, size)
        if badness < least:
            best, least = camera, badness
        if badness == 0:
            break
    if best is None:  # the subject stands where no camera gets near it; the middle of the square sees it somehow
        best = (_intrinsics(random, size), _look(np.array([0.0, 0.0, 7.0]), subject, 0.0))
    return best


def _badness(mesh: Mesh, camera: tuple[np.ndarray, np.ndarray], distance: float, size: tuple[int, int]) -> float:
    """Return 0 for a picture with the subject in view, little sky and nothing right before the lens; more is worse."""
    K, T_w2c = camera
    depth = glance(mesh, K=K, T_w2c=T_w2c, size=size, factor=16)
    sky = float((depth == 0).mean())
    close = float(((depth > 0) & (depth < NEAREST)).mean())
    h, w = depth.shape
    middle = depth[h // 2 - 2 : h // 2 + 3, w // 2 - 2 : w // 2 + 3]
    hidden = float((middle < 0.55 * distance).mean())
    near = max(0.0, CROWDED - float(np.median(depth[depth > 0]))) if (depth > 0).any() else 1.0
    return near + max(0.0, sky - 0.35) + max(0.0, close - 0.02) + max(0.0, hidden - 0.5)


def _intrinsics(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    focal = max(size) * float(np.exp(random.uniform(np.log(0.62), np.log(1.25))))
    cx, cy = ((side - 1) / 2 + random.normal(0, 0.005) * side for side in size)
    return np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1.0]])


def _look(eye: np.ndarray, target: np.ndarray, roll: float) -> np.ndarray:
    """Return (4, 4) world to camera: x right, y down, z forward, turned by ``roll`` about the view axis."""
    z = (target - eye) / np.linalg.norm(target - eye)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    y = np.cross(z, x)
    x, y = np.cos(roll) * x + np.sin(roll) * y, np.cos(roll) * y - np.sin(roll) * x
    R = np.stack([x, y, z])
    T_w2c = np.eye(4)
    T_w2c[:3, :3], T_w2c[:3, 3] = R, -R @ eye
    return T_w2c
