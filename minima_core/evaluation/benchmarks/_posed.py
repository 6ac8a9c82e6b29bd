"""What benchmarks of posed images share: an npz of images, cameras and pairs becomes pairs with a relative pose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minima_core.errors import DataError
from minima_core.evaluation.benchmarks._files import ImageFile, about_images
from minima_core.evaluation.benchmarks.base import Lens, PairTruth, as_matrix
from minima_core.io.pickled import read_arrays


@dataclass(frozen=True)
class PosedPair:
    """A pair as an index tells of it: paths relative to the data, (3, 3) intrinsics, (4, 4) pose of 0 in 1."""

    name: str
    category: str
    image0: str
    image1: str
    K0: np.ndarray
    K1: np.ndarray
    T_0to1: np.ndarray


def read_index(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Return the arrays ``keys`` of an index file, in this order.

    Raises:
        DataError: if the file cannot be used.
    """
    found = read_arrays(path, keys)
    if missing := [key for key in keys if key not in found]:
        raise DataError(f"{path} has no {', '.join(missing)}; it is no index of this benchmark, get it again")
    return {key: found[key] for key in keys}


def relative_pose(T_w2c0: Any, T_w2c1: Any) -> np.ndarray:
    """Return (4, 4) pose of camera 0 in camera 1 from two world-to-camera poses."""
    return np.asarray(T_w2c1, dtype=np.float64) @ np.linalg.inv(np.asarray(T_w2c0, dtype=np.float64))


def truths(
    root: Path, pairs: Iterable[PosedPair], *, workers: int, what: str, lenses: Mapping[str, Lens] | None = None
) -> list[PairTruth]:
    """Return the pairs as they are written down, with what is known of their files.

    Args:
        root: folder of the images.
        pairs: in order.
        workers: processes that read files.
        what: the benchmark's name, for messages.
        lenses: of images that are undistorted when they are read; their intrinsics are then those of the result.

    Raises:
        DataError: naming the file or pair that cannot be used.
    """
    listed = list(pairs)
    files = about_images(root, [i for p in listed for i in (p.image0, p.image1)], workers=workers, what=what)
    straight = {name: lens.straight(files[name].size) for name, lens in (lenses or {}).items() if name in files}
    return [_truth(pair, files, straight) for pair in listed]


def _truth(pair: PosedPair, files: Mapping[str, ImageFile], straight: Mapping[str, np.ndarray]) -> PairTruth:
    K0, K1 = straight.get(pair.image0, pair.K0), straight.get(pair.image1, pair.K1)
    for matrix, side in ((K0, 3), (K1, 3), (pair.T_0to1, 4)):
        if np.shape(matrix) != (side, side) or not np.isfinite(matrix).all():
            raise DataError(f"pair {pair.name} has a camera or pose that is none; get its index again")
    file0, file1 = files[pair.image0], files[pair.image1]
    return PairTruth(
        name=pair.name,
        category=pair.category,
        image0=pair.image0,
        image1=pair.image1,
        sha0=file0.sha256,
        sha1=file1.sha256,
        size0=file0.size,
        size1=file1.size,
        K0=as_matrix(K0),
        K1=as_matrix(K1),
        T_0to1=as_matrix(pair.T_0to1),
    )
