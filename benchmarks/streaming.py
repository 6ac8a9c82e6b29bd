"""How much of a GPU's rate the stage keeps: `python benchmarks/streaming.py [--device cuda] [--precision bfloat16]`.

Depth Anything V2 (large) and the infrared latent editor at their published sizes, with random weights, whose
arithmetic is the published one's. Alone: batches of pictures in memory through the engine. Stage: reading, engine,
gate, encoding and writing, as `tasks.synthesise` runs it on one device. The gate judges every picture and lets each
pass, because what random weights draw would be refused and drawn again.

`--waiting 18` takes the place of the depth network by one that does nothing for so many milliseconds an image, as the
host does while a GPU computes: what the stage adds to that can be seen on any machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import torch
from networks import depth_network
from synthesis import compute, timed, write_world

from minima_core.synthesis.base import MODALITIES
from minima_core.synthesis.depth import depth_anything_v2
from minima_core.synthesis.infrared import _networks
from minima_core.synthesis.runner import synthesise_index

WIDTH, HEIGHT = 640, 480
LENIENT = {"sure": -1e9, "score": -1e9, "offset": 1e9, "retries": 0}


def main() -> None:
    """Print images a second alone and through the stage, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--images", type=int, nargs=2, default=(384, 16), help="for depth, and for infrared")
    parser.add_argument("--steps", type=int, default=50, help="of the infrared sampler")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to try this file without a GPU")
    parser.add_argument("--waiting", type=float, help="milliseconds an image; depth alone, without a GPU")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.waiting:
        arguments.device = "cpu:0"  # by this name it is not the CPU, which the stage uses in another way
        depth_anything_v2._random = lambda: Waiting(arguments.waiting / 1000)
        depth_anything_v2.DepthAnythingV2.batch_size = lambda *_: 8  # type: ignore[method-assign]
    elif not arguments.tiny:
        depth_anything_v2._random = lambda: depth_network(small=False)
        _networks.TINY = _networks.PUBLISHED
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else arguments.device
    print(f"{name}, {arguments.precision}, {WIDTH} x {HEIGHT}; images a second")
    shared = {"weights": "random", "precision": arguments.precision}
    depth = {**MODALITIES.settings("depth", "depth_anything_v2"), **shared, "model": "large"}
    measure("depth", depth, arguments.device, arguments.images[0])
    if arguments.waiting:
        return
    infrared = {**MODALITIES.settings("infrared", "stylebooth"), **shared, "adapter": "none", "steps": arguments.steps}
    measure("infrared", infrared, arguments.device, arguments.images[1])


class Waiting(torch.nn.Module):
    """A network that waits, with its hands off the processor, and then returns what it was given in gray."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds  # an image

    def forward(self, images: torch.Tensor) -> SimpleNamespace:
        """Return (B, h, w) of (B, 3, h, w)."""
        time.sleep(self.seconds * len(images))
        return SimpleNamespace(predicted_depth=images.mean(1))


def measure(modality: str, settings: dict[str, Any], device: str, count: int) -> None:
    """Print one engine's row."""
    engine = MODALITIES.create(modality, settings)
    engine.setup(device)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sources = [item.read() for item in write_world(root, 8, WIDTH, HEIGHT)]
        batch = engine.batch_size(WIDTH, HEIGHT)
        compute(engine, modality, sources, 8)
        alone = count / timed(lambda: compute(engine, modality, sources, count))

        def stage() -> None:
            synthesise_index(
                root / "index",
                root / "raw",
                root / "out",
                modality=modality,
                settings=settings,
                gate=LENIENT,
                seed=0,
                workers=1,
                scratch=root / "scratch",
                device=device,
            )

        stage()  # makes the engine that the stage keeps
        write_world(root, count, WIDTH, HEIGHT)
        rate = count / timed(stage)
    print(
        f"{modality + '/' + settings['engine']:28} alone {alone:8.2f} (batches of {batch}), stage {rate:8.2f}, "
        f"ratio {rate / alone:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
