"""What an exporter is: it writes scenes of the one index as somebody else's training code reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from minima_core.data.index import Scene
from minima_core.geometry.coords import to_corner_origin
from minima_core.manifest import Split
from minima_core.plugins import Plugins


class Exporter(ABC):
    """A form of index. The images stay where they are: paths start from the index's raw folder, as ours do."""

    lists: ClassVar[dict[Split, str]] = {}  # files that name the parts of each split

    @abstractmethod
    def write(self, folder: Path, scene: Scene) -> list[str]:
        """Write one scene below ``folder`` and return what the list of its split calls it."""

    def finish(self, folder: Path, parts: Iterable[tuple[Split, str]]) -> None:
        """Write the lists of parts."""
        listed = list(parts)
        for split, name in self.lists.items():
            lines = [part for at, part in listed if at == split]
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


EXPORTERS: Plugins[Exporter] = Plugins("minima_core.data.exporters", Exporter, "form")  # type: ignore[type-abstract]


def records(scene: Scene) -> dict[str, np.ndarray]:
    """Return the four lists that the three forms share, as arrays of objects with None for what is not there.

    The principal point counts from the corner of the first pixel, as COLMAP does and these files do.
    """
    K = scene.K.copy()
    K[:, :2, 2] = to_corner_origin(torch.from_numpy(K[:, :2, 2])).numpy()
    return {
        "image_paths": objects(scene.image),
        "depth_paths": objects([path or None for path in scene.depth]),
        "intrinsics": objects(K),
        "poses": objects(scene.T_w2c),
    }


def objects(values: Iterable[object]) -> np.ndarray:
    """Return a 1-D array of objects, whatever they are."""
    listed = list(values)
    array = np.empty(len(listed), dtype=object)
    for i, value in enumerate(listed):
        array[i] = value
    return array
