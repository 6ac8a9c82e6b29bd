"""Whole images at the size that a matcher is trained at, made once and kept: to read one is to copy its bytes.

A part is a file of the scene's images end to end, uint8 (3, h, w), or of their depth, float32 (h, w). It has no header:
where an image lies follows from the sizes in the index. Nothing is compressed, because decoding and resizing are what
reading cost; a kind of image takes 3 bytes a pixel, depth 4.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from minima_core.data.index import Scene
from minima_core.data.pairs import PairSource
from minima_core.data.parts import make_parts, part_paths
from minima_core.errors import DataError
from minima_core.io.atomic import atomic_path
from minima_core.io.images import to_tensor
from minima_core.io.open_files import OpenFiles
from minima_core.matchers.base import resize, resized, stretch
from minima_core.types import RGB

Fit = Literal["pad", "stretch"]
GEOMETRY = "geometry"  # the kind that is no image; a modality of synthesised pictures is called depth


class FittedImages:
    """The images of a source, resized; safe to read from several threads.

    Args:
        source: whose images.
        folder: where parts are kept; one that belongs to the other arguments alone.
        side: pixels of the square that images are fitted into.
        fit: ``"pad"`` keeps the aspect, the longer side becomes ``side``; ``"stretch"`` makes both sides that long.
        multiple: both sides of an image whose aspect is kept are floored to a multiple of this.
        workers: threads that make what is missing.
    """

    def __init__(
        self, source: PairSource, folder: Path, *, side: int, fit: Fit, multiple: int = 1, workers: int = 1
    ) -> None:
        self.source = source
        self.side = side
        self.fit = fit
        self.multiple = multiple
        self._sizes = {scene.name: self._fitted_sizes(scene) for scene in source.scenes}
        kinds = (RGB, *source.names, GEOMETRY)
        self._parts = part_paths(source, folder, kinds, suffix=".raw")
        self._files = OpenFiles(lambda path: path.open("rb", buffering=0))
        missing = [
            (scene, kind)
            for scene in source.scenes
            for kind in kinds
            if (any(scene.depth) if kind == GEOMETRY else source.offers(scene, kind))
            and not self._is_whole(scene, kind)
        ]
        make_parts(missing, self._make, self._write, workers=workers, what=f"{source.split} images of {side} pixels")
        source.close()  # the parts hold what training reads

    def image(self, scene: Scene, i: int, modality: str) -> torch.Tensor:
        """Return image ``i`` of a scene in a modality, (3, h, w) uint8."""
        w, h = self.size(scene, i)
        return torch.from_numpy(self._read(scene, modality, i).reshape(3, h, w))

    def depth(self, scene: Scene, i: int) -> torch.Tensor | None:
        """Return the (h, w) float32 depth of image ``i``, None where it has none."""
        if not scene.depth[i]:
            return None
        w, h = self.size(scene, i)
        return torch.from_numpy(self._read(scene, GEOMETRY, i).view(np.float32).reshape(h, w))

    def size(self, scene: Scene, i: int) -> tuple[int, int]:
        """Return width and height of fitted image ``i``."""
        w, h = self._sizes[scene.name][i]
        return int(w), int(h)

    def close(self) -> None:
        """Close all parts; they open again when needed."""
        self._files.close()

    def _fitted_sizes(self, scene: Scene) -> np.ndarray:
        if self.fit == "stretch":
            return np.full((len(scene.image), 2), self.side)
        return np.array([resized((int(w), int(h)), self.side, self.multiple) for w, h in scene.size])

    def _offsets(self, scene: Scene, kind: str) -> np.ndarray:
        """Return (N + 1,) bytes from a part's start to each image's, and to the end."""
        pixels = self._sizes[scene.name].prod(1, dtype=np.int64)
        return np.concatenate([[0], np.cumsum(pixels * (4 if kind == GEOMETRY else 3))])

    def _is_whole(self, scene: Scene, kind: str) -> bool:
        part = self._parts[scene.name, kind]
        return part.is_file() and part.stat().st_size == self._offsets(scene, kind)[-1]

    def _make(self, scene: Scene, kind: str, i: int) -> torch.Tensor:
        w, h = self.size(scene, i)
        if kind == GEOMETRY:
            depth = self.source.depth(scene, i)
            if depth is None:
                return torch.zeros(h, w)
            return F.interpolate(torch.from_numpy(depth)[None, None], size=(h, w), mode="nearest-exact")[0, 0]
        if not self.source.has(scene, i, kind):  # nothing will ask for it; the place keeps the numbering
            return torch.zeros(3, h, w, dtype=torch.uint8)
        image = to_tensor(self.source.image(scene, i, kind))
        small, _ = resize(image, self.side, self.multiple) if self.fit == "pad" else stretch(image, self.side)
        return (small * 255).round().byte()

    def _write(self, scene: Scene, kind: str, made: Iterator[torch.Tensor]) -> None:
        with atomic_path(self._parts[scene.name, kind]) as temporary, temporary.open("wb") as file:
            for values in made:
                file.write(values.contiguous().numpy().data)

    def _read(self, scene: Scene, kind: str, i: int) -> np.ndarray:
        start, end = (int(n) for n in self._offsets(scene, kind)[i : i + 2])
        values = np.empty(end - start, np.uint8)
        part = self._parts[scene.name, kind]
        with self._files.use(part) as file:
            got = os.preadv(file.fileno(), [values.data], start)
        if got != len(values):
            raise DataError(f"{part} was cut while it was in use; remove it and run again")
        return values
