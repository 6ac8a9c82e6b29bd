"""LoFTR's index: ``SCENE_LOW_HIGH.npz``, one file a scene and range of overlaps (spec/datasets.md section 3).

The published files are pickled dicts, those that MINIMA rewrote are archives; both are read. The files of a scene
become one scene.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from minima_core.data.importers._records import Legacy, Records, arrays, as_pairs, index_files
from minima_core.data.importers.base import SPLIT_LISTS
from minima_core.errors import DataError
from minima_core.manifest import Split

NAME = re.compile(r"(.+?)(_[0-9.]+_[0-9.]+)?\.npz")
KEYS = ("image_paths", "depth_paths", "intrinsics", "poses", "pair_infos")


class Loftr(Legacy):
    """``image_paths``, ``depth_paths``, ``intrinsics``, ``poses``, and ``pair_infos`` of ((i, j), overlap, centres)."""

    lists: ClassVar[dict[Split, str]] = SPLIT_LISTS

    def scene_of(self, part: str) -> str:
        """Return SCENE of SCENE_LOW_HIGH."""
        match = NAME.fullmatch(f"{part.removesuffix('.npz')}.npz")
        return match.group(1) if match else part

    def files(self) -> dict[str, list[Path]]:
        """Return the files of each scene."""
        found: dict[str, list[Path]] = {}
        for path in index_files(self.source, "*.npz", "SCENE_LOW_HIGH.npz of LoFTR"):
            match = NAME.fullmatch(path.name)
            assert match is not None
            found.setdefault(match.group(1), []).append(path)
        return found

    def read(self, path: Path) -> Records:
        """Return what a file holds."""
        found = arrays(path, KEYS)
        try:
            infos = list(found["pair_infos"])
            pairs = as_pairs(path, [info[0] for info in infos])
            overlap = np.array([float(info[1]) for info in infos], np.float64)
        except (TypeError, ValueError, IndexError) as error:
            raise DataError(f"{path}: pair_infos are not ((i, j), overlap, ...) ({error}); get it again") from None
        return Records.of(path, found, pairs, overlap)
