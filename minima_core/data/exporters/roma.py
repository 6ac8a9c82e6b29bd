"""RoMa's and DKM's index: one pickled dict a scene, in an array of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minima_core.data.exporters.base import Exporter, records
from minima_core.data.importers.base import SCENE_LISTS
from minima_core.data.index import Scene
from minima_core.io.atomic import write_bytes
from minima_core.io.pickled import npy_bytes


class Roma(Exporter):
    """``prep_scene_info/SCENE.npy``; which scenes are for what its loader knows by name, and ours by the lists."""

    lists = SCENE_LISTS

    def write(self, folder: Path, scene: Scene) -> list[str]:
        """Write the one file of a scene."""
        box = np.empty((), dtype=object)
        box[()] = {**records(scene), "pairs": scene.pairs, "overlaps": scene.overlap}
        write_bytes(folder / "prep_scene_info" / f"{scene.name}.npy", npy_bytes(box))
        return [scene.name]
