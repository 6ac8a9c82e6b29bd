"""RoMa's and DKM's index: ``SCENE.npy``, a pickled dict with a list of pairs (spec/datasets.md section 5)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from minima_core.data.importers._records import Legacy, Records, arrays, as_pairs, index_files
from minima_core.data.importers.base import SCENE_LISTS
from minima_core.errors import DataError
from minima_core.manifest import Split

KEYS = ("image_paths", "depth_paths", "intrinsics", "poses", "pairs", "overlaps")


class Roma(Legacy):
    """``image_paths``, ``depth_paths``, ``intrinsics``, ``poses``, ``pairs`` (M, 2) and ``overlaps`` (M,)."""

    lists: ClassVar[dict[Split, str]] = SCENE_LISTS

    def files(self) -> dict[str, list[Path]]:
        """Return the one file of each scene."""
        return {path.stem: [path] for path in index_files(self.source, "*.npy", "SCENE.npy of RoMa")}

    def read(self, path: Path) -> Records:
        """Return what a file holds."""
        found = arrays(path, KEYS)
        try:
            overlap = np.array(list(found["overlaps"]), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}: overlaps are no numbers ({error}); get it again") from None
        return Records.of(path, found, as_pairs(path, found["pairs"]), overlap)
