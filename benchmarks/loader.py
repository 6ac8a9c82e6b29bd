"""Time training samples read our way against a loader that opens picture and depth of each item, as the reference does.

``python benchmarks/loader.py [--views 6] [--size 1600 1200]``: a world of noise is made in a temporary folder; both
ways read the same pairs in two threads, at the reference's input sizes. Prints pairs a second, ours of two epochs, how
much memory the second epoch has added, and how fast what our way keeps was made, once for all epochs.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import torch
from torch import nn

from minima_core.data.image_pairs import ImagePairs
from minima_core.data.index import Scene, write_scene
from minima_core.data.pairs import PairSource
from minima_core.data.sampling import Item
from minima_core.data.shards import write_shard
from minima_core.io.depth import write_depth
from minima_core.io.images import encode_jpeg, write_image
from minima_core.manifest import ModalityManifest, SceneEntry, SceneManifest
from minima_core.matchers.base import TrainingData
from minima_core.matchers.lightglue.data import CachedPairs
from minima_core.matchers.lightglue.extractors import Extractor
from minima_core.random import rng

THREADS = 2
MODALITY = "infrared"


class Anywhere(Extractor):
    """Finds keypoints at random: how long a network takes is not asked here."""

    SIZE_MULTIPLE = 32
    FILE = ""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)

    def _extract(self, image: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        places = torch.rand(limit, 2) * (torch.tensor(image.shape[:1:-1]) - 1)
        return places, torch.rand(limit), torch.rand(limit, 64)


def make_world(root: Path, views: int, size: tuple[int, int]) -> PairSource:
    """Write a scene of soft noise, with depth and one modality, in which every two views are a pair."""
    w, h = size
    encoded = []
    images, depths = ([f"hall/{kind}/{v}.{end}" for v in range(views)] for kind, end in (("i", "jpg"), ("d", "h5")))
    for v in range(views):
        coarse = rng(v, "loader").uniform(0, 255, (h // 8, w // 8, 3)).astype(np.float32)
        shown = cv2.resize(coarse, size).clip(0, 255).astype(np.uint8)
        (root / "raw" / images[v]).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / "raw" / images[v], shown)
        write_depth(root / "raw" / depths[v], cv2.resize(1 + coarse[..., 0] / 99, size))
        encoded.append((f"hall/{v}", encode_jpeg(255 - shown), "{}"))
    K = np.array([[w, 0, w / 2], [0, w, h / 2], [0, 0, 1.0]])
    poses = np.tile(np.eye(4), (views, 1, 1))
    poses[:, 0, 3] = np.arange(views) * 0.01
    pairs = np.array([[i, j] for i in range(views) for j in range(i)])
    scene = Scene(
        "hall", "train", images, depths, [""] * views, np.tile(size, (views, 1)), np.tile(K, (views, 1, 1)), poses,
        pairs, np.full(len(pairs), 0.5),
    )  # fmt: skip
    write_scene(root / "index", scene)
    entry = SceneEntry(name="hall", split="train", images=views, pairs=len(pairs), digest="0")
    SceneManifest(dataset="noise", licence="none", relation="depth", raw="raw", scenes=[entry]).save(root / "index")
    encoded = [(scene.image_id(v), data, drawn) for v, (_, data, drawn) in enumerate(encoded)]
    write_shard(root / "modalities" / MODALITY / "hall.h5", encoded)
    ModalityManifest(
        modality=MODALITY, engine="none", params={}, seed=0, licence="none", commercial=True, encoding="jpeg95",
        source_digest="0", status="complete", scenes={"hall": views},
    ).save(root / "modalities" / MODALITY)  # fmt: skip
    return PairSource(root / "index", root / "raw", root / "modalities", split="train", names=[MODALITY])


def plain(source: PairSource, item: Item, side: int, *, gray: bool, square: bool) -> list[torch.Tensor]:
    """Read a pair's files as the reference's data sets do: decode, resize, pad; depth in full."""
    scene, pair = source.locate(item.pair)
    read = []
    for v in scene.pairs[pair]:
        image = cv2.imread(str(source.raw / scene.image[v]), cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR)
        h, w = image.shape[:2]
        scale = side / max(h, w)
        new = (side, side) if square else (round(w * scale) // 8 * 8, round(h * scale) // 8 * 8)
        small = cv2.resize(image, new, interpolation=cv2.INTER_CUBIC if square else cv2.INTER_LINEAR)
        padded = np.zeros((side, side, *image.shape[2:]), np.float32)
        padded[: new[1], : new[0]] = small / 255.0
        with h5py.File(source.raw / scene.depth[v], "r") as file:
            depth = np.asarray(file["depth"], np.float32)
        read += [torch.from_numpy(padded), torch.from_numpy(cv2.resize(depth, new) if square else depth)]
    return read


def rate(read: Callable[[Item], Any], items: list[Item]) -> float:
    """Return pairs a second."""
    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(read, items):
            pass
    return len(items) / (time.perf_counter() - began)


def memory() -> float:
    """Return the memory that this process holds, MB; its peak would hide growth below an earlier one."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--size", type=int, nargs=2, default=(1600, 1200))
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        source = make_world(Path(folder), given.views, tuple(given.size))
        items = [Item(k, *(("rgb", MODALITY) if k % 2 else (MODALITY, "rgb"))) for k in range(len(source))]
        cache = Path(folder) / "cache"
        kept = {"cache": cache, "workers": THREADS}

        def keypoints() -> CachedPairs:
            return CachedPairs(source, Anywhere(), long_side=1024, max_keypoints=2048, **kept)

        ways: list[tuple[str, Callable[[], TrainingData], int, bool, bool]] = [
            ("lightglue 1024", keypoints, 1024, False, False),
            ("loftr 640", lambda: ImagePairs(source, side=640, fit="pad", multiple=8, **kept), 640, True, False),
            ("roma 560", lambda: ImagePairs(source, side=560, fit="stretch", **kept), 560, False, True),
        ]
        print(
            "input            per item   ours: epoch 1, epoch 2   ratio   memory added by epoch 2   made once, images/s"
        )
        for name, prepare, side, gray, square in ways:
            began = time.perf_counter()
            data = prepare()
            made = 2 * given.views / (time.perf_counter() - began)
            reference = rate(lambda i, s=side, g=gray, q=square: plain(source, i, s, gray=g, square=q), items)  # type: ignore[misc]
            first = rate(data.sample, items)
            before = memory()
            second = rate(data.sample, items)
            added = memory() - before
            print(
                f"{name:15s} {reference:9.1f} {first:14.1f} {second:9.1f} {second / reference:12.2f} {added:9.1f} MB"
                f" {made:24.1f}"
            )


if __name__ == "__main__":
    main()
