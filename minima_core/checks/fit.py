"""Whether images fit what is said of them: pairs their pose or homography, pictures their depth map; and copies."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import torch

from minima_core.checks.structure import Field, agreement, image_field
from minima_core.geometry.coords import scaling
from minima_core.geometry.epipolar import symmetric_distances
from minima_core.geometry.homography import warp_homography

SIDE = 640  # longer side of the images that are matched
KEYPOINTS = 1500
RATIO = 0.8
FEWEST = 30  # matches below which nothing is said
NEAR = 8.0  # pixels from the epipolar line, or from the place that a homography gives
TURNS = {"upside down": (-1, -1), "mirrored": (1, -1), "mirrored and upside down": (-1, 1)}  # steps along rows, columns
CLEAR = 4.5  # height of an alignment peak that a wrong picture does not reach, as in validation.bands
LEAD = 3.0  # by which a turned picture must fit better
LOOK = 16  # differences of brightness along each side
SAME = 24  # of their 256 signs, in which two copies may differ; different pictures differ in 70 and more, if not flat
ALIKE = 48  # pixels along each side of the copies that are compared in full
COPIED = 0.95  # correlation of two such that are of one picture


def pair_fit(
    image0: np.ndarray,
    image1: np.ndarray,
    *,
    F_0to1: np.ndarray | None = None,
    H_0to1: np.ndarray | None = None,
) -> float | None:
    """Return the share of SIFT matches between two (H, W, 3) uint8 images that fit what relates them.

    One of the (3, 3) matrices is given, in pixels. None where there are too few matches to say anything.
    """
    (kpts0, desc0, S0), (kpts1, desc1, S1) = _features(image0), _features(image1)
    if desc0 is None or desc1 is None or min(len(desc0), len(desc1)) < FEWEST:
        return None
    near = cv2.BFMatcher().knnMatch(desc0, desc1, k=2)
    matches = [first for first, second in near if first.distance < RATIO * second.distance]
    if len(matches) < FEWEST:
        return None
    points0 = kpts0[[match.queryIdx for match in matches]]
    points1 = kpts1[[match.trainIdx for match in matches]]
    if F_0to1 is not None:
        F_small = np.linalg.inv(S1).T @ F_0to1 @ np.linalg.inv(S0)
        distances = symmetric_distances(points0[:, None], points1[:, None], torch.from_numpy(F_small))[:, 0, 0]
    else:
        assert H_0to1 is not None
        distances = (warp_homography(torch.from_numpy(S1 @ H_0to1 @ np.linalg.inv(S0)), points0) - points1).norm(dim=-1)
    return float((distances < NEAR).double().mean())


def _features(image: np.ndarray) -> tuple[torch.Tensor, np.ndarray | None, np.ndarray]:
    """Return (N, 2) float64 keypoints in pixels of the image made smaller, descriptors, and the (3, 3) way there."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = gray.shape
    factor = min(SIDE / max(height, width), 1.0)
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    found, descriptors = cv2.SIFT_create(nfeatures=KEYPOINTS).detectAndCompute(small, None)  # type: ignore[attr-defined]
    points = torch.tensor([keypoint.pt for keypoint in found], dtype=torch.float64).reshape(-1, 2)
    return points, descriptors, scaling((size[0] / width, size[1] / height)).numpy()


def turned(image: np.ndarray, depth: list[Field]) -> str:
    """Say how an (H, W, 3) uint8 image must be turned to fit its depth map, "" where it fits as it is.

    ``depth`` are ``structure.depth_fields`` of the map. Only what is clear is said.
    """
    own = _best(depth, image)
    for how, (rows, columns) in TURNS.items():
        if _best(depth, np.ascontiguousarray(image[::rows, ::columns])) > max(CLEAR, own + LEAD):
            return how
    return ""


def _best(depth: list[Field], image: np.ndarray) -> float:
    field = image_field(image)
    scores = [found.score for one in depth if (found := agreement(one, field)) is not None]
    return max(scores, default=0.0)


def picture_look(image: np.ndarray) -> int:
    """Return 256 bits that copies of an (H, W, 3) uint8 image share, whatever their size and compression.

    A bit says whether the picture, made very small, is brighter than to its left.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small: np.ndarray = cv2.resize(gray, (LOOK + 1, LOOK), interpolation=cv2.INTER_AREA).astype(np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes())


def same_picture(image0: np.ndarray, image1: np.ndarray) -> bool:
    """Say whether two (H, W, 3) uint8 images, of any sizes, are of one picture: their gray correlates."""
    small = [
        cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (ALIKE, ALIKE), interpolation=cv2.INTER_AREA)
        for image in (image0, image1)
    ]
    return bool(np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] >= COPIED)


def same_looks(looks: list[int]) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, of pictures that may be the same: at most ``SAME`` bits differ.

    Pictures with large flat parts share the bits of those; ``same_picture`` tells them apart. Of two that look the same
    at least one of ``SAME + 1`` pieces is equal, so that only those are compared.
    """
    ends = [piece * LOOK * LOOK // (SAME + 1) for piece in range(SAME + 2)]  # of about equal width, and none is empty
    found = set()
    for first, end in pairwise(ends):
        groups: dict[int, list[int]] = {}
        for j, value in enumerate(looks):
            group = groups.setdefault(value >> first & (1 << end - first) - 1, [])
            found |= {(i, j) for i in group if (looks[i] ^ value).bit_count() <= SAME}
            group.append(j)
    return sorted(found)
