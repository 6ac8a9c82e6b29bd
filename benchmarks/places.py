"""Which place of a cell is its own point, by XFeat*'s official weights: `python benchmarks/places.py FOLDER`.

The authors' code takes the fifth of the eight places along either side, index 4. Each photograph of the folder, cut to
640 x 640, is matched cell by cell with itself under a drawn homography, whose truth is known to the bit; printed is how
far matches lie off in the median of a photograph, along x and y, for that index and its neighbours.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from minima_core.geometry.cells import CELL, cell_points
from minima_core.geometry.homography import warp_homography
from minima_core.io.images import read_image, to_tensor
from minima_core.matchers.xfeat_star.matcher import XFeatStar
from minima_core.matchers.xfeat_star.network import MIDDLE, describe, mean_place, places
from minima_core.models import PUBLISHED_MODELS, create
from minima_core.random import rng

SIDE, SHOWN = 800, 640  # pixels of the photograph that is warped, and of the part of it that is matched
CORNERS = np.array([[0, 0], [SIDE - 1, 0], [SIDE - 1, SIDE - 1], [0, SIDE - 1]], np.float32)
MOVED, SURE, NEAR = 60, 0.25, 10.0  # pixels of a corner; least certainty; pixels from the truth that a right match lies
INDICES = (2, 3, 4, 5)


def main() -> None:
    """Print a row for each index: the lowest, mean and highest of the photographs' medians along x and along y."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=12)
    arguments = parser.parse_args()
    matcher = create(*PUBLISHED_MODELS["xfeat-star"], "places")
    assert isinstance(matcher, XFeatStar)
    matcher.load_published()
    files = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    errors = np.array([offset(matcher.eval(), path) for path in files[: arguments.photos]])
    print(f"{len(errors)} photographs; pixels off, lowest / mean / highest of their medians")
    for index in INDICES:
        moved = errors - (index - MIDDLE)
        rows = zip(moved.min(0), moved.mean(0), moved.max(0), strict=True)
        each = (f"{low:+.1f} / {mean:+.1f} / {high:+.1f}" for low, mean, high in rows)
        print(f"index {index}   along x {next(each)}   along y {next(each)}")


@torch.inference_mode()
def offset(matcher: XFeatStar, path: Path) -> list[float]:
    """Return the median error along x and y of a photograph's right matches, in pixels."""
    image = cv2.resize(read_image(path), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    shifts = rng(0, "places", path.name).uniform(-MOVED, MOVED, (4, 2)).astype(np.float32)
    H = cv2.getPerspectiveTransform(CORNERS, CORNERS + shifts)
    both = image, cv2.warpPerspective(image, H, (SIDE, SIDE))
    views = torch.stack([to_tensor(some[:SHOWN, :SHOWN]) for some in both])
    (desc0, desc1), _ = describe(matcher.network, views, torch.ones(2, SHOWN, SHOWN, dtype=torch.bool))
    similarity = desc0 @ desc1.mT
    j = similarity.argmax(1)
    i = torch.where(similarity.argmax(0)[j] == torch.arange(len(j)))[0]
    points = cell_points(SHOWN // CELL, SHOWN // CELL)
    found, certainty = mean_place(places(matcher.network, desc0[i], desc1[j[i]]))
    true = warp_homography(torch.linalg.inv(torch.from_numpy(H))[None], points[j[i]][None].double())[0] - points[i]
    right = (true.abs() < NEAR).all(1) & (certainty > SURE)
    return [float(value) for value in (found - true)[right].median(0).values]


if __name__ == "__main__":
    main()
