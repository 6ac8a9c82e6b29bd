"""LoFTR's index: one pickled dict a scene and range of overlaps, and the lists of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np

from minima_core.data.exporters.base import Exporter, records
from minima_core.data.importers.base import SPLIT_LISTS
from minima_core.data.index import Scene
from minima_core.io.atomic import write_bytes
from minima_core.io.pickled import pickle_bytes
from minima_core.manifest import Split

EDGES = (0.0, 0.1, 0.3, 0.5, 0.7, 1.0)  # LoFTR trains on those between 0.1 and 0.7


class Loftr(Exporter):
    """``index/scene_info/SCENE_LOW_HIGH.npz``; its loaders need dicts that they can delete from, not archives."""

    lists: ClassVar[dict[Split, str]] = {split: f"index/{name}" for split, name in SPLIT_LISTS.items()}

    def write(self, folder: Path, scene: Scene) -> list[str]:
        """Write a file for each range that holds a pair."""
        shared, centres = records(scene), np.zeros(4)  # the centres of the matches, which no loader reads
        names = []
        for low, high in pairwise(EDGES):
            within = (scene.overlap >= low) & ((scene.overlap < high) | (high == EDGES[-1]))
            pairs, overlap = scene.pairs[within].tolist(), scene.overlap[within].tolist()
            if pairs:
                names.append(f"{scene.name}_{low:.1f}_{high:.1f}")
                infos = [(tuple(pair), share, centres) for pair, share in zip(pairs, overlap, strict=True)]
                content = pickle_bytes({**shared, "pair_infos": infos})
                write_bytes(folder / "index/scene_info" / f"{names[-1]}.npz", content)
        return names
