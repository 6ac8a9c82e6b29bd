"""How well a painter paints: `python benchmarks/painter.py random painter.safetensors [--photos FOLDER]`.

Each argument is a weight file of `tasks.pretrain_painter`, or `random` for a network of the published kind before any
training. Prints the mean absolute error and PSNR of the engine's paintings against the pictures, long side 256: three
that scikit-image ships, and three of a folder of your own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from minima_core.io.images import find_images, read_image
from minima_core.synthesis.base import MODALITIES, Source

SIDE = 256


def main() -> None:
    """Print a line for each set of weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--photos", type=Path, help="folder of photographs")
    parser.add_argument("--final-pass", choices=["all", "decided"], default="all")
    arguments = parser.parse_args()
    pictures = [data.astronaut(), data.chelsea(), data.coffee()]
    if arguments.photos:
        found = find_images(arguments.photos)
        pictures += [read_image(path) for path in found[:: max(1, len(found) // 3)][:3]]
    pictures = [shrunk(picture) for picture in pictures]
    print(f"{len(pictures)} pictures, long side {SIDE}, final pass {arguments.final_pass}")
    for weights in arguments.weights:
        settings = MODALITIES.settings("paint", "paint_transformer")
        settings |= {"weights": weights, "brushes": "own", "final_pass": arguments.final_pass}
        engine = MODALITIES.create("paint", settings)
        engine.setup()
        errors = [
            engine.synthesise(Source(str(k), picture), seed=0, modality="paint").image / 255.0 - picture / 255.0
            for k, picture in enumerate(pictures)
        ]
        absolute = np.mean([np.abs(error).mean() for error in errors])
        psnr = np.mean([-10 * np.log10((error**2).mean()) for error in errors])
        print(f"{Path(weights).stem:24} L1 {absolute:.3f}   PSNR {psnr:.1f} dB", flush=True)


def shrunk(picture: np.ndarray) -> np.ndarray:
    """Return a picture whose longer side is 256 pixels."""
    scale = SIDE / max(picture.shape[:2])
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    main()
