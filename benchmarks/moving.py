"""What moving matches brings, and costs: `OMP_NUM_THREADS=1 python benchmarks/moving.py ../shared/data/photos`.

The first photographs of a folder, at 640 px, are matched with themselves and with renditions of them, each under a
homography that is known: up to 10 degrees, 15 percent of size, and corners shifted by 6 percent. Printed is how far the
matches that come within 8 px lie from the truth, where keypoints were found and moved, the median over the photographs
of their medians and the mean share within a pixel; and the median seconds of a pair.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from minima_core import load_matcher
from minima_core.geometry.homography import warp_homography
from minima_core.io.images import read_image
from minima_core.models import LoadedMatcher
from minima_core.random import rng
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.types import RGB

SIDE = 640
RIGHT = 8.0  # pixels within which a match counts as right


def main() -> None:
    """Print a row for RGB and for each modality."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of JPEG files")
    parser.add_argument("--limit", type=int, default=15, help="photographs")
    parser.add_argument("--model", default="minima-lightglue")
    parser.add_argument("--modalities", nargs="*", default=["infrared", "sketch", "event"])
    arguments = parser.parse_args()
    moving, still = load_matcher(arguments.model), load_matcher(arguments.model)
    still.matcher.refiner = None
    photographs = [shrunk(read_image(path)) for path in sorted(arguments.photos.glob("*.jpg"))[: arguments.limit]]
    title = "".join(f"{where + ': px':>12}{'within 1 px':>13}{'s':>6}" for where in ("found", "moved"))
    print(f"{len(photographs):3} photographs{title}")
    for modality in [RGB, *arguments.modalities]:
        pairs = [(picture, *turned(rendition(picture, modality, k), k)) for k, picture in enumerate(photographs)]
        rows = {model: np.array([measured(model, *pair) for pair in pairs]) for model in (still, moving)}
        cells = "".join(
            f"{np.median(some[:, 0]):12.2f}{100 * some[:, 1].mean():11.0f} %{np.median(some[:, 2]):6.2f}"
            for some in rows.values()
        )
        print(f"{modality:15}{cells}", flush=True)


def shrunk(image: np.ndarray) -> np.ndarray:
    """Return an (H, W, 3) picture with its longer side at ``SIDE`` pixels."""
    scale = SIDE / max(image.shape[:2])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def rendition(picture: np.ndarray, modality: str, k: int) -> np.ndarray:
    """Return a picture as the default engine of a modality renders it."""
    if modality == RGB:
        return picture
    engine = MODALITIES.create(modality, MODALITIES.settings(modality))
    return engine.synthesise(Source(str(k), picture), seed=0, modality=modality).image


def turned(picture: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture under the homography of number ``k``, and that (3, 3) homography."""
    (height, width), random = picture.shape[:2], rng(0, "moving", k)
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    centre, angle = np.array([width, height]) / 2, np.deg2rad(random.uniform(-10, 10))
    turn = random.uniform(0.85, 1.15) * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    there = (corners - centre) @ turn.T + centre + random.uniform(-0.06, 0.06, (4, 2)) * [width, height]
    H_0to1 = cv2.getPerspectiveTransform(corners, there.astype(np.float32))
    return cv2.warpPerspective(picture, H_0to1, (width, height), borderMode=cv2.BORDER_REFLECT), H_0to1


def measured(
    model: LoadedMatcher, image0: np.ndarray, image1: np.ndarray, H_0to1: np.ndarray
) -> tuple[float, float, float]:
    """Return the median distance of right matches to the truth, the share of them within a pixel, and the seconds."""
    began = time.perf_counter()
    matches = model.match(image0, image1, long_side=SIDE)
    seconds = time.perf_counter() - began
    off = (warp_homography(torch.from_numpy(H_0to1), matches.mkpts0.double()) - matches.mkpts1).norm(dim=1)
    off = off[off < RIGHT]
    return float(off.median()), float((off < 1).float().mean()), seconds


if __name__ == "__main__":
    main()
