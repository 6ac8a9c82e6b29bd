"""glue-factory's index: ``SCENE.npz`` with a matrix of overlaps (spec/datasets.md section 4)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from minima_core.data.importers._records import Legacy, Records, arrays, index_files
from minima_core.data.importers.base import SCENE_LISTS
from minima_core.errors import DataError
from minima_core.manifest import Split

KEYS = ("image_paths", "depth_paths", "intrinsics", "poses", "overlap_matrix")


class GlueFactory(Legacy):
    """``image_paths``, ``depth_paths``, ``intrinsics``, ``poses``, and ``overlap_matrix``, -1 where there is no pair.

    The overlap of (i, j) is the share of image i's points that image j sees, so that (i, j) and (j, i) are two pairs.
    """

    lists: ClassVar[dict[Split, str]] = SCENE_LISTS

    def files(self) -> dict[str, list[Path]]:
        """Return the one file of each scene."""
        return {path.stem: [path] for path in index_files(self.source, "*.npz", "SCENE.npz of glue-factory")}

    def read(self, path: Path) -> Records:
        """Return what a file holds."""
        found = arrays(path, KEYS)
        matrix = np.asarray(found["overlap_matrix"])
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "fiu":
            raise DataError(
                f"{path}: overlap_matrix is {matrix.dtype} {matrix.shape}, no square of numbers; get it again"
            )
        low, high = self.settings.overlap
        i, j = np.nonzero((matrix > low) & (matrix <= high))
        return Records.of(path, found, np.stack([i, j], 1).astype(np.int64), matrix[i, j].astype(np.float64))
