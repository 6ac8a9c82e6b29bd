"""Which keypoints of two images are the same point: labels for sparse matchers, from depth and pose or a homography.

Rules of spec/training.md section 3.3: a match is a mutual nearest neighbour under the larger of the two reprojection
errors and below ``th_pos``; a keypoint whose place in the other image is known and has no keypoint within ``th_neg``
is unmatched; about all others nothing is said. Everything is in pixels of the images the keypoints were found in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from minima_core.geometry.epipolar import fundamental, symmetric_distances
from minima_core.geometry.homography import warp_homography
from minima_core.geometry.project import inside, warp_points
from minima_core.types import IGNORE, UNMATCHED

TH_POSITIVE = 3.0
TH_NEGATIVE = 5.0


@dataclass(frozen=True)
class Targets:
    """Labels of one pair.

    Attributes:
        matches0: (M,) int64, index into the keypoints of image 1, or UNMATCHED, or IGNORE.
        matches1: (N,) int64, likewise into those of image 0.
    """

    matches0: torch.Tensor
    matches1: torch.Tensor


@dataclass(frozen=True)
class _Warped:
    """Keypoints of one image as the other sees them, as numpy arrays.

    Attributes:
        points: (N, 2) float64 pixels in the other image; infinite where unknown or behind the camera.
        visible: (N,) bool, the place is known and on the other image.
        known: (N,) bool, the geometry says where the point is, on the image or not.
    """

    points: np.ndarray
    visible: np.ndarray
    known: np.ndarray


def matches_from_depth(
    kpts0: torch.Tensor,
    kpts1: torch.Tensor,
    *,
    depth0: torch.Tensor,
    depth1: torch.Tensor,
    K0: torch.Tensor,
    K1: torch.Tensor,
    T_0to1: torch.Tensor,
    size0: tuple[int, int],
    size1: tuple[int, int],
    th_pos: float = TH_POSITIVE,
    th_neg: float = TH_NEGATIVE,
) -> Targets:
    """Label keypoints by depth and pose.

    There is no test for occlusion: a match needs keypoints that land on each other both ways, which points of two
    surfaces do not. A keypoint without depth becomes UNMATCHED only where every keypoint that might be its partner
    lies further than ``th_neg`` from its epipolar line.

    Args:
        kpts0: (M, 2) pixels.
        kpts1: (N, 2) pixels.
        depth0: (M,) depth at the keypoints, NaN or 0 where unknown.
        depth1: (N,) likewise.
        K0: (3, 3) intrinsics.
        K1: (3, 3) intrinsics.
        T_0to1: (4, 4) camera 0 to camera 1.
        size0: width and height of image 0.
        size1: width and height of image 1.
        th_pos: largest reprojection error of a match.
        th_neg: smallest distance to all keypoints of an unmatched one.
    """
    kpts0, kpts1 = kpts0.double(), kpts1.double()
    K0, K1, T_0to1 = K0.double(), K1.double(), T_0to1.double()
    warped0 = _by_depth(kpts0, depth0.double(), K0, K1, T_0to1, size1)
    warped1 = _by_depth(kpts1, depth1.double(), K1, K0, torch.linalg.inv(T_0to1), size0)
    matches0, matches1 = _label(kpts0.numpy(), kpts1.numpy(), warped0, warped1, th_pos, th_neg)
    _exclude_by_epipolar_lines(
        (matches0, matches1), (warped0.known, warped1.known), (kpts0, kpts1), fundamental(T_0to1, K0, K1), th_neg
    )
    return Targets(torch.from_numpy(matches0), torch.from_numpy(matches1))


def matches_from_homography(
    kpts0: torch.Tensor,
    kpts1: torch.Tensor,
    *,
    H_0to1: torch.Tensor,
    size0: tuple[int, int],
    size1: tuple[int, int],
    th_pos: float = TH_POSITIVE,
    th_neg: float = TH_NEGATIVE,
) -> Targets:
    """Label (M, 2) and (N, 2) keypoints by the homography (3, 3) that relates their images; all places are known."""
    kpts0, kpts1, H_0to1 = kpts0.double(), kpts1.double(), H_0to1.double()
    warped0 = _located(warp_homography(H_0to1, kpts0), np.ones(len(kpts0), bool), size1)
    warped1 = _located(warp_homography(torch.linalg.inv(H_0to1), kpts1), np.ones(len(kpts1), bool), size0)
    matches0, matches1 = _label(kpts0.numpy(), kpts1.numpy(), warped0, warped1, th_pos, th_neg)
    return Targets(torch.from_numpy(matches0), torch.from_numpy(matches1))


def matches_from_places(
    kpts0: torch.Tensor,
    kpts1: torch.Tensor,
    mask0: torch.Tensor,
    mask1: torch.Tensor,
    *,
    warped0: torch.Tensor,
    warped1: torch.Tensor,
    size: tuple[int, int],
    th_pos: float = TH_POSITIVE,
    th_neg: float = TH_NEGATIVE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Label B pairs of images by where their keypoints lie in the other image, on the device of the keypoints.

    What the functions above say of a pair, without their rule for keypoints whose place is unknown.

    Args:
        kpts0: (B, M, 2) keypoints.
        kpts1: (B, N, 2) keypoints.
        mask0: (B, M) bool, False where padded; padding is IGNORE.
        mask1: (B, N) bool.
        warped0: (B, M, 2) places of ``kpts0`` in image 1: NaN where unknown, infinite where behind the camera.
        warped1: (B, N, 2) places of ``kpts1`` in image 0.
        size: width and height of all images.
        th_pos: pixels.
        th_neg: pixels.
    """
    none = ~(mask0[:, :, None] & mask1[:, None, :])
    exact = "donot_use_mm_for_euclid_dist"
    apart0 = torch.cdist(warped0, kpts1, compute_mode=exact).nan_to_num(nan=torch.inf).masked_fill(none, torch.inf)
    apart1 = torch.cdist(kpts0, warped1, compute_mode=exact).nan_to_num(nan=torch.inf).masked_fill(none, torch.inf)
    seen0, seen1 = (inside(warped, size) for warped in (warped0, warped1))
    error = torch.maximum(apart0, apart1).masked_fill(~(seen0[:, :, None] & seen1[:, None, :]), torch.inf)
    best0, best1 = error.min(2), error.min(1)
    mutual0 = best1.indices.gather(1, best0.indices) == torch.arange(kpts0.shape[1], device=kpts0.device)
    mutual1 = best0.indices.gather(1, best1.indices) == torch.arange(kpts1.shape[1], device=kpts1.device)
    matches0 = torch.where(mutual0 & (best0.values < th_pos), best0.indices, IGNORE)
    matches1 = torch.where(mutual1 & (best1.values < th_pos), best1.indices, IGNORE)
    alone0 = (apart0.amin(2) > th_neg) & ~warped0.isnan().any(-1)
    alone1 = (apart1.amin(1) > th_neg) & ~warped1.isnan().any(-1)
    matches0, matches1 = matches0.masked_fill(alone0, UNMATCHED), matches1.masked_fill(alone1, UNMATCHED)
    return matches0.masked_fill(~mask0, IGNORE), matches1.masked_fill(~mask1, IGNORE)


def _by_depth(
    kpts: torch.Tensor,
    depth: torch.Tensor,
    K: torch.Tensor,
    K_other: torch.Tensor,
    T: torch.Tensor,
    size: tuple[int, int],
) -> _Warped:
    pixels, _ = warp_points(kpts[None], depth[None], K[None], K_other[None], T[None])
    return _located(pixels[0], (depth.isfinite() & (depth > 0)).numpy(), size)


def _located(pixels: torch.Tensor, known: np.ndarray, size: tuple[int, int]) -> _Warped:
    placed = known & pixels.isfinite().all(-1).numpy()
    points = np.where(placed[:, None], pixels.numpy(), np.inf)
    return _Warped(points, placed & inside(pixels, size).numpy(), known)


def _label(
    kpts0: np.ndarray, kpts1: np.ndarray, warped0: _Warped, warped1: _Warped, th_pos: float, th_neg: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return both sides' labels before epipolar lines are looked at."""
    matches0 = np.full(len(kpts0), IGNORE, np.int64)
    matches1 = np.full(len(kpts1), IGNORE, np.int64)
    if len(kpts0) and len(kpts1):
        i, j = _mutual_nearest(kpts0, kpts1, warped0, warped1, th_pos)
        matches0[i], matches1[j] = j, i
    matches0[warped0.known & (_nearest(warped0.points, kpts1, th_neg) > th_neg)] = UNMATCHED
    matches1[warped1.known & (_nearest(warped1.points, kpts0, th_neg) > th_neg)] = UNMATCHED
    return matches0, matches1


def _mutual_nearest(
    kpts0: np.ndarray, kpts1: np.ndarray, warped0: _Warped, warped1: _Warped, th_pos: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return index pairs nearest to each other under the larger of both errors, below ``th_pos``.

    Only pairs within ``th_pos`` can be matches and the nearest of those is the nearest of all, so a search tree
    replaces the table of all M x N distances.
    """
    seen0, seen1 = np.flatnonzero(warped0.visible), np.flatnonzero(warped1.visible)
    if not len(seen0) or not len(seen1):
        return seen0[:0], seen1[:0]
    near = cKDTree(warped0.points[seen0]).sparse_distance_matrix(
        cKDTree(kpts1[seen1]), th_pos, output_type="coo_matrix"
    )
    i, j = seen0[near.row], seen1[near.col]
    error = np.maximum(near.data, np.linalg.norm(warped1.points[j] - kpts0[i], axis=1))
    close = error < th_pos
    i, j, error = i[close], j[close], error[close]
    best = np.intersect1d(_first_of_each(i, error, j), _first_of_each(j, error, i))
    return i[best], j[best]


def _first_of_each(group: np.ndarray, error: np.ndarray, tie: np.ndarray) -> np.ndarray:
    """Return for each value of ``group`` the position of its smallest error, of equal ones the smaller ``tie``."""
    order = np.lexsort((tie, error, group))
    _, first = np.unique(group[order], return_index=True)
    return order[first]


def _nearest(points: np.ndarray, kpts: np.ndarray, limit: float) -> np.ndarray:
    """Return (N,) distance of each point to its nearest keypoint, inf beyond ``limit`` or where there is no place."""
    distance = np.full(len(points), np.inf)
    placed = np.isfinite(points).all(1)
    if len(kpts) and placed.any():
        # the bound prunes the search; the next float up keeps a distance of exactly ``limit`` in
        distance[placed], _ = cKDTree(kpts).query(points[placed], distance_upper_bound=np.nextafter(limit, np.inf))
    return distance


def _exclude_by_epipolar_lines(
    matches: tuple[np.ndarray, np.ndarray],
    known: tuple[np.ndarray, np.ndarray],
    kpts: tuple[torch.Tensor, torch.Tensor],
    F_0to1: torch.Tensor,
    th_neg: float,
) -> None:
    """Mark keypoints without depth as UNMATCHED, in place, where no ignored keypoint lies near their epipolar line."""
    open0, open1 = (np.flatnonzero(side == IGNORE) for side in matches)
    blind0, blind1 = (np.flatnonzero((side == IGNORE) & ~k) for side, k in zip(matches, known, strict=True))
    for side, blind, others, F_here in ((0, blind0, open1, F_0to1), (1, blind1, open0, F_0to1.mT)):
        if not len(blind):
            continue
        nearest = np.full(len(blind), np.inf)
        if len(others):
            nearest = symmetric_distances(kpts[side][blind], kpts[1 - side][others], F_here).amin(1).numpy()
        matches[side][blind[nearest > th_neg]] = UNMATCHED
