"""Objects in a picture: connected areas of one material, or superpixels grouped by how they look."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from minima_core.synthesis._filters import gaussian

ALIKE = 0.045  # distance in look at which neighbouring superpixels of a class are one object


def objects_of_materials(material: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (H, W) int32 objects, numbered from 0, and the material of each: connected areas of (H, W) uint8 ids."""
    within = np.zeros(material.shape, np.int32)  # from 1 among the areas of a pixel's own material
    before = np.zeros(256, np.int32)  # areas of the materials before each
    kinds: list[int] = []
    for kind in np.flatnonzero(np.bincount(material.ravel())).tolist():
        count, labels = cv2.connectedComponents((material == kind).view(np.uint8), connectivity=4)
        np.add(within, labels, out=within)
        before[kind] = len(kinds)
        kinds += [kind] * (count - 1)
    return before.take(material) + within - 1, np.array(kinds)


def objects_of_picture(
    image: np.ndarray, classes: int, cell: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (H, W) int32 objects of (H, W, 3) uint8 ``image``, the class of each, and the (classes, 5) mean looks.

    A look is (L, a, b, texture, height in the picture), all about 0 to 1.
    """
    height, width = image.shape[:2]
    whole = cv2.cvtColor(cv2.medianBlur(image, 3), cv2.COLOR_RGB2LAB)
    light = whole[..., 0].astype(np.float32) / 255
    half = (max(width // 2, 1), max(height // 2, 1))  # objects are wider than two pixels, their rims are refined later
    small, gray, square = (
        cv2.resize(plane, half, interpolation=cv2.INTER_AREA) for plane in (whole, light, light * light)
    )
    lab = small.astype(np.float32) / 255
    slope = _slope(lab)
    labels = superpixels(lab, slope, max(cell // 2, 2))
    count = int(labels.max()) + 1
    texture = np.sqrt(np.maximum(gaussian(square, 1.5) - gaussian(gray, 1.5) ** 2, 0))
    rows = np.broadcast_to(np.linspace(0, 1, half[1], dtype=np.float32)[:, None], gray.shape)
    flat = labels.ravel()
    calm = (0.02 + slope) ** -2  # a superpixel looks like its inside, not like the mixture at its rim
    size = np.bincount(flat, calm.ravel(), minlength=count)
    planes = (*cv2.split(lab), texture, rows)
    looks = np.stack([np.bincount(flat, (p * calm).ravel(), minlength=count) / size for p in planes], 1)
    kinds, centres = _cluster(looks, min(classes, count), rng)
    merged = _merge(labels, looks, kinds)
    first = np.unique(merged, return_index=True)[1]
    number = np.searchsorted(merged[first], merged).astype(np.int32)
    objects = cv2.resize(number[labels], (width, height), interpolation=cv2.INTER_NEAREST)
    return objects, kinds[first], centres


def _slope(lab: np.ndarray) -> np.ndarray:
    slope = np.zeros(lab.shape[:2], np.float32)
    for plane in cv2.split(gaussian(lab, 0.5)):
        for order in ((1, 0), (0, 1)):
            edges = cv2.Sobel(plane, cv2.CV_32F, *order, scale=0.5, borderType=cv2.BORDER_REPLICATE)
            slope += np.abs(edges)
    return slope


def superpixels(lab: np.ndarray, slope: np.ndarray, cell: int) -> np.ndarray:
    """Return (H, W) int32 labels from 0: watersheds of the colours, seeded at the calmest pixel of each ``cell``."""
    height, width = slope.shape
    rows, columns = -(-height // cell), -(-width // cell)
    padded = np.full((rows * cell, columns * cell), np.inf, np.float32)
    padded[:height, :width] = slope
    cells = padded.reshape(rows, cell, columns, cell).swapaxes(1, 2).reshape(rows * columns, cell * cell)
    calm = cells.argmin(1)
    y = np.repeat(np.arange(rows), columns) * cell + calm // cell
    x = np.tile(np.arange(columns), rows) * cell + calm % cell
    markers = np.zeros((height, width), np.int32)
    markers[y, x] = np.arange(1, rows * columns + 1)
    if min(height, width) < 3:  # OpenCV's watershed walks a border of one pixel, and nothing would be left
        return np.zeros((height, width), np.int32)
    relief = np.clip(lab * 255, 0, 255).astype(np.uint8)
    labels = cv2.watershed(relief, markers).astype(np.float32)
    for _ in range(2):  # the lines between the basins, and the frame, take a neighbour's label
        labels = np.where(labels > 0, labels, cv2.dilate(labels, np.ones((3, 3), np.uint8)))
    found, compact = np.unique(np.maximum(labels, 1).astype(np.int32), return_inverse=True)
    return compact.reshape(height, width).astype(np.int32) if len(found) else np.zeros((height, width), np.int32)


def _cluster(looks: np.ndarray, classes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the class of each of (N, D) ``looks`` and the class centres (Lloyd's k-means, farthest-first start)."""
    weight = np.array([1, 2.5, 2.5, 1.5, 0.3])  # colour tells materials apart better than brightness does
    points = looks * weight
    chosen = [int(rng.integers(len(points)))]
    nearest = np.full(len(points), np.inf)
    for _ in range(classes - 1):
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(nearest.argmax()))
    centres = points[chosen]
    for _ in range(8):
        kinds = ((centres**2).sum(1) - 2 * points @ centres.T).argmin(1)  # squared distances, but for a common part
        members = np.maximum(np.bincount(kinds, minlength=classes), 1)[:, None]
        sums = np.stack([np.bincount(kinds, p, minlength=classes) for p in points.T], 1)
        centres = np.where(np.bincount(kinds, minlength=classes)[:, None] > 0, sums / members, centres)
    return kinds, centres / weight


def _merge(labels: np.ndarray, looks: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Return the representative of each superpixel after joining neighbours of one class that look alike."""
    pairs = np.concatenate([_borders(labels[:, 1:], labels[:, :-1]), _borders(labels[1:], labels[:-1])])
    keys = np.unique(pairs.min(1) * len(looks) + pairs.max(1))
    low, high = keys // len(looks), keys % len(looks)
    close = (kinds[low] == kinds[high]) & (np.abs(looks[low, :3] - looks[high, :3]).sum(1) < ALIKE)
    graph = coo_array((np.ones(close.sum(), bool), (low[close], high[close])), shape=(len(looks), len(looks)))
    groups = connected_components(graph, directed=False)[1]
    return np.unique(groups, return_index=True)[1][groups]


def _borders(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return (N, 2) int64 pairs of the labels that differ between two maps."""
    at = np.flatnonzero(one != other)
    return np.stack([one.ravel()[at], other.ravel()[at]], 1).astype(np.int64)
