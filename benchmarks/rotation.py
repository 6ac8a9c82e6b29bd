"""How far two pictures may be turned against each other: `python benchmarks/rotation.py --model minima-lightglue`.

Cut-outs of rendered views are matched with the same place turned by known angles, as photographs and as infrared,
and once more with `any_rotation`. A row gives the share of pairs whose homography, by RANSAC from the matches, puts the
corners within 5 pixels in the mean.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from minima_core.config import load_params
from minima_core.data.datasets.synthetic import Synthetic
from minima_core.geometry.homography import corner_error
from minima_core.models import LoadedMatcher, load_matcher
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.sources import items_of

ANGLES = (0, 30, 45, 60, 90, 180)  # degrees
SIDE = 336  # pixels of a cut-out; turned by any angle it lies within a picture of 640 x 480
NEAR = 5.0  # pixels


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a published name, or a model folder")
    parser.add_argument("--views", type=int, default=20)
    arguments = parser.parse_args()
    matcher = load_matcher(arguments.model, "cpu")
    sources = views(arguments.views)
    settings = MODALITIES.settings("infrared")
    engine = MODALITIES.create("infrared", settings)
    seen = {
        "RGB": [source.image for source in sources],
        "infrared": [engine.synthesise(source, seed=0, modality="infrared").image for source in sources],
    }
    sys.stdout.write(f"{'degrees':>8} {'RGB':>8} {'any':>8} {'infrared':>9} {'any':>8}\n")
    for angle in ANGLES:
        shares = [
            solved(matcher, sources, turned, angle, any_rotation=any_rotation)
            for turned in seen.values()
            for any_rotation in (False, True)
        ]
        sys.stdout.write(f"{angle:8d} {shares[0]:8.2f} {shares[1]:8.2f} {shares[2]:9.2f} {shares[3]:8.2f}\n")
        sys.stdout.flush()


def views(count: int) -> list[Source]:
    """Return rendered views of places that no training has seen, with their depth and materials."""
    settings = load_params(Path("params.yaml"))["dataset"]["synthetic"] | {"scenes": 2, "validation_scenes": 0}
    world = Synthetic(Synthetic.Params(**settings | {"views": -(-count // 2)}), seed=60)
    with tempfile.TemporaryDirectory() as folder:
        world.prepare(Path(folder), workers=1)
        items = [item for scene in world.scenes(Path(folder)) for item in items_of(scene, Path(folder))]
        return [item.read() for item in items[:count]]


def solved(
    matcher: LoadedMatcher, sources: Sequence[Source], turned: Sequence[np.ndarray], angle: int, *, any_rotation: bool
) -> float:
    """Return the share of pairs whose homography is right."""
    right = 0
    for source, other in zip(sources, turned, strict=True):
        height, width = source.image.shape[:2]
        centre = ((width - 1) / 2, (height - 1) / 2)
        to_cut = np.array([[1, 0, (SIDE - 1) / 2 - centre[0]], [0, 1, (SIDE - 1) / 2 - centre[1]], [0, 0, 1]])
        turn = np.vstack([cv2.getRotationMatrix2D(centre, angle, 1), [0, 0, 1]])
        image0, image1 = (
            cv2.warpPerspective(image, H, (SIDE, SIDE)) for image, H in ((source.image, to_cut), (other, to_cut @ turn))
        )
        found = matcher.match(image0, image1, long_side=640, any_rotation=any_rotation)
        if len(found) < 4:
            continue
        H, _ = cv2.findHomography(found.mkpts0.numpy(), found.mkpts1.numpy(), cv2.USAC_MAGSAC, 3.0)
        truth = torch.from_numpy(to_cut @ turn @ np.linalg.inv(to_cut))
        right += H is not None and corner_error(torch.from_numpy(H), truth, (SIDE, SIDE)) < NEAR
    return right / len(sources)


if __name__ == "__main__":
    main()
