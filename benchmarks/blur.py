"""How far a matcher follows a head into blurred PET: `python benchmarks/blur.py --model minima-lightglue`.

Slices of the data set `anatomy` are matched with their own `nuclear` pictures under a known warp, at 640 pixels, for
scanners of several resolutions. A row gives the medians over the slices: matches, and those within 8 pixels.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from minima_core.config import load_params
from minima_core.data.datasets.anatomy import Anatomy
from minima_core.models import LoadedMatcher, load_matcher
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.sources import items_of

RESOLUTIONS = (2, 4, 8, 12, 16, 20)  # full width at half height, pixels
NEAR = 8.0  # pixels
CORNERS = np.array([[0, 0], [639, 0], [639, 479], [0, 479]], np.float32)
MOVED = np.array([[40, 10], [600, 40], [620, 460], [20, 440]], np.float32)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a published name, or a model folder")
    parser.add_argument("--slices", type=int, default=12)
    arguments = parser.parse_args()
    matcher, sources = load_matcher(arguments.model, "cpu"), slices(arguments.slices)
    for resolution in RESOLUTIONS:
        found = np.median([follow(matcher, source, resolution) for source in sources], axis=0)
        sys.stdout.write(f"{resolution:3d} px  {found[0]:6.0f} matches  {found[1]:6.0f} right\n")


def slices(count: int) -> list[Source]:
    """Return the upright views of the slices for training, with their tissues."""
    settings = load_params(Path("params.yaml"))["dataset"]["anatomy"] | {"slices": count}
    head = Anatomy(Anatomy.Params(**settings), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        head.prepare(Path(folder))
        items = [
            item
            for s in head.scenes(Path(folder))
            if s.split == "train"
            for item in items_of(s, Path(folder), "nuclear")
        ]
        return [item.read() for item in items if item.name.endswith("-0")]


def follow(matcher: LoadedMatcher, source: Source, resolution: int) -> tuple[int, int]:
    """Return how many matches there are between a slice and its warped emission picture, and how many are right."""
    settings = {"resolution": [resolution] * 2, "noise": [0.02] * 2, "palettes": ["gray"]}
    engine = MODALITIES.create("nuclear", MODALITIES.settings("nuclear") | settings)
    H_0to1 = cv2.getPerspectiveTransform(CORNERS, MOVED)
    seen = cv2.warpPerspective(engine.synthesise(source, seed=0, modality="nuclear").image, H_0to1, (640, 480))
    found = matcher.match(source.image, seen, max_keypoints=2048, long_side=640)
    if not len(found.mkpts0):
        return 0, 0
    there = cv2.perspectiveTransform(found.mkpts0.numpy()[None].astype(np.float64), H_0to1)[0]
    errors = np.linalg.norm(there - found.mkpts1.numpy(), axis=1)
    return len(errors), int((errors < NEAR).sum())


if __name__ == "__main__":
    main()
