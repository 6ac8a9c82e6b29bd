"""From files to what an engine may look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minima_core.data.index import Scene
from minima_core.errors import DataError, redo
from minima_core.io.depth import read_depth
from minima_core.io.images import read_ids, read_image
from minima_core.synthesis.base import Source

FILES = frozenset({"depth", "material", "tissue", "rendition", "camera"})  # what may be known beside a picture
RENDITIONS = (".jpg", ".png")  # what they end in
TISSUES = "tissues"  # the folder of a scene's maps


@dataclass(frozen=True)
class Item:
    """Where one image and what belongs to it lie; small enough to send to a worker process."""

    name: str
    image: Path
    depth: Path | None = None
    material: Path | None = None
    size: tuple[int, int] | None = None  # width and height that the image must have
    K: np.ndarray | None = None
    T_0to1: np.ndarray | None = None  # to the camera of a neighbouring view
    # of a scene: whose rendition by somebody else may lie in <scene>/dense<k>/<modality>; tissues lie there too
    modality: str = ""

    def read(self, files: frozenset[str] = FILES) -> Source:
        """Return the source, with those of its files beside the picture that are asked for.

        Raises:
            DataError: naming the file that is missing, damaged or of another size than its image.
        """
        image = read_image(self.image)
        size = (image.shape[1], image.shape[0])
        if self.size is not None and size != self.size:
            raise DataError(
                f"{self.image} is {size[0]} x {size[1]} but its index says {self.size[0]} x {self.size[1]}; "
                f"make the index again with {redo('index')}"
            )
        depth_file = self.depth if "depth" in files else None
        material_file = self.material if "material" in files else None
        depth = None if depth_file is None else _fitting(read_depth(depth_file), image, depth_file)
        material = None if material_file is None else _fitting(read_ids(material_file), image, material_file)
        tissue_file = self._beside(TISSUES, (".png",)) if "tissue" in files else None
        if "tissue" in files and self.modality and tissue_file is None and self._folder(TISSUES).is_dir():
            raise DataError(f"{self.image} has no map of tissues, others have; make them again with {redo('download')}")
        tissue = None if tissue_file is None else _fitting(read_ids(tissue_file), image, tissue_file)
        rendition_file = self._beside(self.modality, RENDITIONS) if "rendition" in files else None
        rendition = None if rendition_file is None else read_image(rendition_file)
        K = self.K if "camera" in files else None
        return Source(self.name, image, depth, K, material, self.T_0to1, rendition, tissue)

    def _beside(self, folder: str, suffixes: Sequence[str]) -> Path | None:
        """Return the picture's own file in ``<scene>/dense<k>/<folder>``, None where there is none."""
        found = (self._folder(folder) / f"{self.image.stem}{suffix}" for suffix in suffixes)
        return next((path for path in found if self.modality and path.is_file()), None)

    def _folder(self, name: str) -> Path:
        return self.image.parent.parent / name


def items_of(scene: Scene, raw: Path, modality: str = "") -> list[Item]:
    """Return the items of a scene, in its order, for engines of ``modality``.

    Raises:
        DataError: if two images would have the same id.
    """
    names = [scene.image_id(i) for i in range(len(scene.image))]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"scene {scene.name} holds two images called {twice}; rename one of them")
    neighbours = _neighbours(scene)
    return [
        Item(
            name,
            raw / scene.image[i],
            raw / scene.depth[i] if scene.depth[i] else None,
            raw / scene.material[i] if scene.material[i] else None,
            (int(scene.size[i, 0]), int(scene.size[i, 1])),
            scene.K[i] if np.isfinite(scene.K[i]).all() else None,
            neighbours.get(i),
            modality,
        )
        for i, name in enumerate(names)
    ]


def _neighbours(scene: Scene) -> dict[int, np.ndarray]:
    """Return, for each image with a pose, the (4, 4) motion to the camera that it shares most of the scene with."""
    if scene.H_0to1 is not None or not len(scene.pairs):
        return {}
    best: dict[int, tuple[float, int]] = {}
    for (i, j), overlap in zip(scene.pairs.tolist(), scene.overlap.tolist(), strict=True):
        for one, other in ((i, j), (j, i)):
            best[one] = max(best.get(one, (-1.0, 0)), (overlap, -other))
    posed = np.isfinite(scene.T_w2c).all((1, 2))
    return {i: scene.T_w2c[-j] @ np.linalg.inv(scene.T_w2c[i]) for i, (_, j) in best.items() if posed[i] and posed[-j]}


def _fitting(plane: np.ndarray, image: np.ndarray, path: Path) -> np.ndarray:
    if plane.shape != image.shape[:2]:
        raise DataError(
            f"{path} is {plane.shape[1]} x {plane.shape[0]} but its image is {image.shape[1]} x {image.shape[0]}; "
            "replace or remove the file"
        )
    return plane
