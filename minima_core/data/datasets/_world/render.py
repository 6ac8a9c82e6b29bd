"""The renderer: z-buffered planes, exact at pixel centres, colour sampled more than once a pixel.

On the image plane the inverse depth of a plane is an affine function of the pixel, and so are u / z, v / z and the side
of each edge on which a pixel lies. Rasterising is therefore nothing but adding rows and columns and comparing, with no
clipping: pixels behind the camera have a negative inverse depth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from minima_core.data.datasets._world.surfaces import Surface
from minima_core.data.datasets._world.textures import NEUTRAL
from minima_core.data.materials import Material
from minima_core.geometry.coords import rescale_K

NEAR = 0.1  # metres
# where in a pixel colour is sampled, and how far each sample's pyramid level is rounded up or down: together they blend
SAMPLES = ((-0.25, -0.25, -0.25), (0.25, 0.25, 0.25))
SHARPNESS = -0.35  # added to the level: half as many samples again as a pixel needs


@dataclass(frozen=True)
class Picture:
    """What the renderer makes of one view.

    Attributes:
        albedo: (H, W, 3) float32 in [0, 255], lit by the sun but not yet seen through a lens.
        depth: (H, W) float64 z in metres, 0 for sky.
        material: (H, W) uint8.
    """

    albedo: np.ndarray
    depth: np.ndarray
    material: np.ndarray


class Mesh:
    """Surfaces with what is needed to see at once which of them a camera can see."""

    def __init__(self, surfaces: list[Surface]) -> None:
        self.surfaces = surfaces
        self._normal = np.stack([s.normal for s in surfaces])
        self._anchor = np.stack([s.corners[0] for s in surfaces])
        self._both = np.array([s.both_sides for s in surfaces])
        self._centre = np.stack([s.corners.mean(axis=0) for s in surfaces])
        self._radius = np.array([np.linalg.norm(s.corners - s.corners.mean(axis=0), axis=1).max() for s in surfaces])

    def visible(self, K: np.ndarray, T_w2c: np.ndarray, size: tuple[int, int]) -> list[tuple[int, Surface]]:
        """Return the surfaces that turn their seen side to the camera and whose ball touches its field of view."""
        R, t = T_w2c[:3, :3], T_w2c[:3, 3]
        eye = -R.T @ t
        height = np.einsum("nc,nc->n", self._normal, eye - self._anchor)
        seen = np.where(self._both, np.abs(height) > 1e-9, height > 1e-9)
        centre = self._centre @ R.T + t
        w, h = size
        edge = np.array([[-1, -1], [w, -1], [w, h], [-1, h]], np.float64)
        rays = np.concatenate([edge, np.ones((4, 1))], 1) @ np.linalg.inv(K).T
        for k in range(4):
            inward = np.cross(rays[k], rays[(k + 1) % 4])
            seen &= centre @ (inward / np.linalg.norm(inward)) > -self._radius
        return [(int(k), self.surfaces[k]) for k in np.flatnonzero(seen & (centre[:, 2] > NEAR - self._radius))]


@dataclass(frozen=True)
class _Plane:
    """A surface in one camera; each row (a, b, c) gives a x + b y + c at pixel (x, y)."""

    index: int
    surface: Surface
    inverse_z: np.ndarray  # (3,)
    u_z: np.ndarray  # (3,) u / z
    v_z: np.ndarray  # (3,)
    edges: np.ndarray  # (n, 3) positive inside
    box: tuple[int, int, int, int]  # x0, y0, x1, y1; ends excluded


def _planes(mesh: Mesh, K: np.ndarray, T_w2c: np.ndarray, size: tuple[int, int]) -> list[_Plane]:
    R, t = T_w2c[:3, :3], T_w2c[:3, 3]
    to_ray = np.linalg.inv(K)
    found = []
    for index, s in mesh.visible(K, T_w2c, size):
        corners = s.corners @ R.T + t
        box = None if corners[:, 2].max() <= NEAR else _box(corners, K, size)
        if box is None:
            continue
        normal = R @ s.normal
        inverse_z = (normal / (normal @ corners[0])) @ to_ray
        origin = R @ s.origin + t
        along, down = R @ s.along, R @ s.down
        along, down = along / (along @ along), down / (down @ down)
        edges = _cross(corners, np.roll(corners, -1, axis=0))
        edges *= np.sign(edges @ corners.mean(axis=0))[:, None]
        u_z = along @ to_ray - (along @ origin) * inverse_z
        v_z = down @ to_ray - (down @ origin) * inverse_z
        found.append(_Plane(index, s, inverse_z, u_z, v_z, edges @ to_ray, box))
    return found


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the (n, 3) cross products; numpy's own takes ten times as long for so few."""
    return np.stack(
        [
            a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1],
            a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2],
            a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0],
        ],
        -1,
    )


def _moved(planes: list[_Plane], dx: float, dy: float) -> list[_Plane]:
    """Return the planes as functions of pixels counted from (dx, dy)."""
    shift = np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])
    return [
        replace(p, inverse_z=p.inverse_z @ shift, u_z=p.u_z @ shift, v_z=p.v_z @ shift, edges=p.edges @ shift)
        for p in planes
    ]


def _box(corners: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Return the pixels that a polygon can touch, or None."""
    z = corners[:, 2]
    if z.min() <= NEAR:
        following = np.roll(corners, -1, axis=0)
        crossing = (z > NEAR) != (following[:, 2] > NEAR)
        share = (NEAR - z[crossing]) / (following[crossing, 2] - z[crossing])
        cut = corners[crossing] + share[:, None] * (following[crossing] - corners[crossing])
        corners = np.concatenate([corners[z > NEAR], cut])
    pixels = corners @ K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    low = np.maximum(np.floor(pixels.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(pixels.max(axis=0)) + 1, size).astype(int)
    return None if (low >= high).any() else (low[0], low[1], high[0], high[1])


def _raster(planes: list[_Plane], size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) int16: which of ``planes`` each pixel shows, -1 for sky."""
    nearest = np.full((size[1], size[0]), 1e-9, np.float32)
    shown = np.full((size[1], size[0]), -1, np.int16)
    for k, plane in enumerate(planes):
        x0, y0, x1, y1 = plane.box
        x, y = np.arange(x0, x1, dtype=np.float64), np.arange(y0, y1, dtype=np.float64)[:, None]
        buffer = nearest[y0:y1, x0:x1]

        def affine(row: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> np.ndarray:
            return (row[0] * x).astype(np.float32) + (row[1] * y + row[2]).astype(np.float32)

        inverse_z = affine(plane.inverse_z)
        seen = inverse_z > buffer
        for edge in plane.edges:
            # the same as affine(edge) >= 0, without a picture of sums
            seen &= (edge[0] * x).astype(np.float32) >= (-edge[1] * y - edge[2]).astype(np.float32)
        if plane.surface.texture.solid is not None:
            rows, columns = np.nonzero(seen)
            z = 1 / inverse_z[rows, columns]
            u, v = (z * (r[0] * x[columns] + r[1] * y[rows, 0] + r[2]) for r in (plane.u_z, plane.v_z))
            seen[rows, columns] = plane.surface.texture.opaque(u, v)
        np.copyto(buffer, inverse_z, where=seen)
        shown[y0:y1, x0:x1][seen] = k
    return shown


def _groups(shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the flat pixel numbers sorted by plane, and where in them each plane (sky first) starts."""
    flat = shown.ravel()
    order = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[order], np.arange(-1, int(flat.max(initial=-1)) + 2))
    return order, starts


def _geometry(planes: list[_Plane], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return (H, W) float64 depth and uint8 material at the pixel centres."""
    shown = _raster(planes, size)
    order, starts = _groups(shown)
    depth = np.zeros(shown.size)
    material = np.full(shown.size, Material.SKY, np.uint8)
    for k, plane in enumerate(planes[: len(starts) - 2]):
        at = order[starts[k + 1] : starts[k + 2]]
        if not len(at):
            continue
        x, y = at % size[0], at // size[0]
        z = 1 / (plane.inverse_z[0] * x + plane.inverse_z[1] * y + plane.inverse_z[2])
        u, v = (z * (row[0] * x + row[1] * y + row[2]) for row in (plane.u_z, plane.v_z))
        depth[at] = z
        material[at] = plane.surface.texture.materials(u, v)
    return depth.reshape(shown.shape), material.reshape(shown.shape)


def _colour(
    planes: list[_Plane], size: tuple[int, int], light: np.ndarray, sky: np.ndarray, dither: float
) -> np.ndarray:
    """Return (H, W, 3) uint8 at the pixels; ``light`` (surfaces, 3) multiplies each surface's colour."""
    shown = _raster(planes, size)
    order, starts = _groups(shown)
    out = sky.reshape(-1, 3).copy()
    for k, plane in enumerate(planes[: len(starts) - 2]):
        at = order[starts[k + 1] : starts[k + 2]]
        if len(at):
            y, x = np.divmod(at.astype(np.int32), np.int32(size[0]))
            out[at] = _shade(plane, x.astype(np.float32), y.astype(np.float32), light[plane.index], dither)
    return out.reshape(size[1], size[0], 3)


def _shade(plane: _Plane, x: np.ndarray, y: np.ndarray, light: np.ndarray, dither: float) -> np.ndarray:
    """Return (N, 3) uint8 of the (N,) pixels that show one plane."""
    surface = plane.surface
    inverse_z, u_z, v_z = (
        np.float32(c[0]) * x + np.float32(c[1]) * y + np.float32(c[2]) for c in (plane.inverse_z, plane.u_z, plane.v_z)
    )
    z = 1 / inverse_z
    u, v = u_z * z, v_z * z
    # area that a pixel covers on the surface, in units of the whole texture: det of the homography times z^3
    area = abs(float(np.linalg.det(np.stack([plane.u_z, plane.v_z, plane.inverse_z]))))
    footprint = 1.5 * np.log2(z) + np.float32(0.5 * np.log2(area) + dither + SHARPNESS)
    w, h = surface.texture.size
    level = np.floor(footprint + np.float32(0.5 * np.log2(w * h) + 0.5)).astype(np.int32)
    rgba = surface.texture.sample(u, v, level).astype(np.float32)
    if surface.detail is not None:
        repeat = np.linalg.norm(surface.along) / surface.tile, np.linalg.norm(surface.down) / surface.tile
        side = surface.detail.size[0]
        level = np.floor(footprint + np.float32(np.log2(side) + 0.5 * np.log2(repeat[0] * repeat[1]) + 0.5))
        if level.min() > np.log2(side) - 2:  # so far away that the tile is one gray
            return np.clip(rgba[:, :3] * light.astype(np.float32), 0, 255).astype(np.uint8)
        fine = surface.detail.sample(
            np.modf(u * np.float32(repeat[0]) + 64)[0],
            np.modf(v * np.float32(repeat[1]) + 64)[0],
            level.astype(np.int32),
        )[:, 0].astype(np.float32)
        factor = 1 + rgba[:, 3] * (fine - NEUTRAL) * np.float32(1 / (255 * NEUTRAL))
        rgba[:, :3] *= factor[:, None]
    return np.clip(rgba[:, :3] * light.astype(np.float32), 0, 255).astype(np.uint8)


def sky_image(panorama: np.ndarray, K: np.ndarray, T_w2c: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W, 3) uint8 of what a camera sees of a (h, w, 3) panorama (azimuth across, elevation 90 to -10)."""
    coarse = [-(-side // 4) for side in size]
    centres = [(np.arange(n) + 0.5) * side / n - 0.5 for n, side in zip(coarse, size, strict=True)]
    grid = np.stack(np.meshgrid(*centres, indexing="xy"), -1)
    rays = np.concatenate([grid, np.ones_like(grid[..., :1])], -1) @ (T_w2c[:3, :3].T @ np.linalg.inv(K)).T
    h, w = panorama.shape[:2]
    azimuth = (np.arctan2(rays[..., 1], rays[..., 0]) / (2 * np.pi)) % 1.0
    elevation = np.degrees(np.arctan2(rays[..., 2], np.hypot(rays[..., 0], rays[..., 1])))
    maps = (azimuth * (w - 1)).astype(np.float32), ((90 - elevation) / 100 * (h - 1)).astype(np.float32)
    small = cv2.remap(panorama, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)


def render(
    mesh: Mesh,
    light: np.ndarray,
    panorama: np.ndarray,
    *,
    K: np.ndarray,
    T_w2c: np.ndarray,
    size: tuple[int, int],
) -> Picture:
    """Render one view of ``size`` = (W, H).

    Args:
        mesh: the world.
        light: (surfaces, 3) factor on each surface's colour.
        panorama: (h, w, 3) uint8 sky.
        K: (3, 3) intrinsics.
        T_w2c: (4, 4) world to camera.
        size: width and height in pixels.
    """
    planes = _planes(mesh, K, T_w2c, size)
    depth, material = _geometry(planes, size)
    sky = sky_image(panorama, K, T_w2c, size)
    total = np.zeros((size[1], size[0], 3), np.float32)
    for dx, dy, dither in SAMPLES:
        total += _colour(_moved(planes, dx, dy), size, light, sky, dither)
    return Picture(total / len(SAMPLES), depth, material)


def glance(mesh: Mesh, *, K: np.ndarray, T_w2c: np.ndarray, size: tuple[int, int], factor: int) -> np.ndarray:
    """Return the depth of a view at 1 / ``factor`` of its size: enough to tell whether the view is worth rendering."""
    tiny = (size[0] // factor, size[1] // factor)
    small = rescale_K(torch.from_numpy(K), (tiny[0] / size[0], tiny[1] / size[1])).numpy()
    return _geometry(_planes(mesh, small, T_w2c, tiny), tiny)[0]
