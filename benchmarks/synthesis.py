"""How fast each synthesis engine is on one core: `python benchmarks/synthesis.py [--size 640x480] [--rounds 5]`.

Prints images a second for each engine, in processor time so that other work on the machine does not count, and how
much faster the vectorised event picture is than the published pixel-by-pixel loop. The picture is a photograph that
scikit-image ships; depth and materials are made up, with holes, steps and tilted planes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np
from skimage import data

from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.event.closed_form import events


def main() -> None:
    """Time every engine with its shipped settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    width, height = (int(word) for word in arguments.size.split("x"))
    cv2.setNumThreads(1)
    source = picture(width, height)
    total = 0.0
    print(f"{'engine':22} {'ms/image':>9} {'images/s':>9}   at {width} x {height}, median of {arguments.rounds}")
    for modality in MODALITIES.names():
        engine = MODALITIES.create(modality, MODALITIES.settings(modality))
        engine.setup()
        name = f"{modality}/{MODALITIES.settings(modality)['engine']}"
        seconds = median_seconds(
            lambda e=engine, m=modality: e.synthesise(source, seed=0, modality=m), arguments.rounds
        )
        total += seconds
        print(f"{name:22} {1e3 * seconds:9.1f} {1 / seconds:9.1f}")
    print(f"{'all':22} {1e3 * total:9.1f} {1 / total:9.1f}")

    gray = cv2.cvtColor(source.image, cv2.COLOR_RGB2GRAY)
    fast = median_seconds(lambda: events(gray, 0.2, 2, -1), max(20, arguments.rounds))
    slow = median_seconds(lambda: double_loop(gray, 0.2, 2, -1), 1)
    assert (events(gray, 0.2, 2, -1) == double_loop(gray, 0.2, 2, -1)).all()
    print(f"event against the pixel loop: {slow / fast:.0f} times as fast ({1e3 * slow:.0f} ms to {1e3 * fast:.1f} ms)")


def median_seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the median processor time of ``work`` after one run to warm up."""
    if rounds > 1:
        work()
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return float(np.median(spent))


def picture(width: int, height: int) -> Source:
    """Return a photograph with made-up geometry."""
    image = cv2.resize(data.astronaut(), (width, height), interpolation=cv2.INTER_AREA)
    ys, xs = np.mgrid[:height, :width] / max(width, height)
    depth = (1 / (0.1 + 0.1 * xs + 0.3 * ys)).astype(np.float32)
    depth[: height // 3, width // 3 : width // 2] = 2.0
    depth[: height // 8] = 0
    material = (1 + (4 * xs).astype(np.uint8) * 4 + (4 * ys).astype(np.uint8)).astype(np.uint8)
    K = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    return Source("benchmark/0", image, depth=depth, K=K, material=np.minimum(material, 17).astype(np.uint8))


def double_loop(gray: np.ndarray, contrast: float, dx: int, dy: int) -> np.ndarray:
    """Return the event picture as its definition reads, pixel by pixel."""
    log = np.log(gray.astype(np.float32) + 1)
    result = np.full((*gray.shape, 3), 255, np.uint8)
    for i in range(abs(dy), gray.shape[0] - abs(dy)):
        for j in range(abs(dx), gray.shape[1] - abs(dx)):
            change = log[i + dy, j + dx] - log[i, j]
            if change > contrast:
                result[i, j] = (0, 0, 255)
            elif change < -contrast:
                result[i, j] = (255, 0, 0)
    return result


if __name__ == "__main__":
    main()
