"""glue-factory's index: one archive a scene with a matrix of overlaps, and the lists of scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minima_core.data.exporters.base import Exporter, records
from minima_core.data.importers.base import SCENE_LISTS
from minima_core.data.index import Scene
from minima_core.io.atomic import write_bytes
from minima_core.io.pickled import npz_bytes


class GlueFactory(Exporter):
    """``scene_info/SCENE.npz``; the matrix is -1 for every two images that are no pair of ours."""

    lists = SCENE_LISTS

    def write(self, folder: Path, scene: Scene) -> list[str]:
        """Write the one file of a scene."""
        matrix = np.full((len(scene.image),) * 2, -1.0)
        matrix[scene.pairs[:, 0], scene.pairs[:, 1]] = scene.overlap
        content = npz_bytes({**records(scene), "overlap_matrix": matrix})
        write_bytes(folder / "scene_info" / f"{scene.name}.npz", content)
        return [scene.name]
