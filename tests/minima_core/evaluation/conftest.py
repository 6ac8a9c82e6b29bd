"""A benchmark small enough to know by heart: images of noise, moved by a known homography."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracle import SIZE, H

from minima_core.evaluation.benchmarks.base import PairList, PairTruth, as_matrix
from minima_core.io.images import encode_png
from minima_core.manifest import file_sha256
from minima_core.random import rng


@pytest.fixture
def benchmark_folder(tmp_path: Path) -> Path:
    """20 pairs in two categories; every fifth finds no match."""
    folder = tmp_path / "benchmark"
    folder.mkdir()
    pairs = []
    for i in range(20):
        image = rng(i, "image").integers(0, 255, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
        image[0, 0] = i
        (folder / f"{i}.png").write_bytes(encode_png(image))
        pairs.append(
            PairTruth(
                name=f"pair{i}",
                category="left" if i < 10 else "right",
                image0=f"{i}.png",
                image1=f"{i}.png",
                sha0=file_sha256(folder / f"{i}.png"),
                sha1=file_sha256(folder / f"{i}.png"),
                size0=SIZE,
                size1=SIZE,
                H_0to1=as_matrix(H.numpy()),
            )
        )
    listed = PairList(
        task="homography", protocol="", headline=["left"], groups={"both": ["left", "right"]}, pairs=pairs
    )
    listed.save(folder)
    listed.manifest("toy", "CC0-1.0").save(folder)
    return folder
