"""Depth maps in MegaDepth's form: one HDF5 file an image, data set ``depth``, 0 where unknown."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from minima_core.errors import DataError, redo
from minima_core.io.hdf5 import new_hdf5, reading

LABELS = 8  # a map of at most this many different values holds labels


def read_depth(path: Path) -> np.ndarray:
    """Return (H, W) float32, 0 where unknown.

    Raises:
        DataError: if the file is missing, not HDF5, has no ``depth``, or holds NaN or negative (ordinal) values.
    """
    if not path.is_file():
        raise DataError(f"no depth file {path}; make the raw scenes again with {redo('download')}")
    with reading(f"depth from {path}", "replace the file"), h5py.File(path, "r") as file:
        depth = np.asarray(file["depth"], dtype=np.float32)
    if depth.ndim != 2 or not np.isfinite(depth).all() or depth.min(initial=0) < 0:
        raise DataError(f"{path} holds no metric depth (2-D, finite, >= 0 expected); replace or remove it")
    return depth


def is_ordinal(depth: np.ndarray) -> bool:
    """Say whether an (H, W) map, 0 where unknown, orders regions (some of MegaDepth do) instead of giving distances."""
    return bool(depth.min(initial=0) < 0) or 1 < len(np.unique(depth[depth != 0])) <= LABELS


def write_depth(path: Path, depth: np.ndarray) -> None:
    """Write (H, W) float32 atomically, compressed as one piece, as it is read; equal maps give equal bytes."""
    how = {"chunks": depth.shape, "compression": "gzip", "compression_opts": 1, "shuffle": True}
    with new_hdf5(path) as file:
        file.create_dataset("depth", data=depth.astype(np.float32), **how)
