"""Image pairs in any two modalities: pictures from raw files and shards, geometry from the index."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from minima_core.config import digest, unknown
from minima_core.data.index import Scene, index_digest, read_scenes
from minima_core.data.shards import Shard
from minima_core.errors import ConfigError, DataError, redo
from minima_core.geometry.pose import relative_pose
from minima_core.io.depth import read_depth
from minima_core.io.images import decode, read_image, to_tensor
from minima_core.io.open_files import OpenFiles
from minima_core.manifest import ModalityManifest, Split
from minima_core.types import RGB, Pair, View


class PairSource:
    """The pairs of one split of an index, in the order of its scenes.

    Depth, intrinsics and pose are those of the RGB image whatever modality a view is in.

    Args:
        index: folder of the pair index.
        raw: folder that the index's image paths start from.
        modalities: folder of the synthesised modalities; None where only RGB is wanted.
        split: which scenes.
        names: synthesised modalities to offer beside RGB; ``"rgb"`` among them is accepted and says nothing new.

    Raises:
        DataError: if a modality was not made or is unavailable for this data set.
    """

    def __init__(self, index: Path, raw: Path, modalities: Path | None, *, split: Split, names: list[str]) -> None:
        self.index = index
        self.raw = raw
        self.modalities = modalities
        self.split: Split = split
        self.names = [name for name in names if name != RGB]
        if self.names and modalities is None:
            raise DataError(f"no folder of modalities given for {', '.join(self.names)}")
        self.scenes = list(read_scenes(index, split))
        manifests = {name: self._manifest(name) for name in self.names}
        self._failed = {name: manifest.without() for name, manifest in manifests.items()}
        self._lacking = {name: manifest.lacking() for name, manifest in manifests.items()}
        self._shards = OpenFiles(Shard)

    def _manifest(self, name: str) -> ModalityManifest:
        assert self.modalities is not None
        manifest = ModalityManifest.load(self.modalities / name)
        if manifest.status != "complete":
            raise DataError(f"{self.modalities / name} is unavailable: {manifest.reason}; take it off the list")
        return manifest

    @cached_property
    def _starts(self) -> np.ndarray:
        """Number of the first pair of each scene, and the total at the end."""
        return np.cumsum([0, *(len(scene.pairs) for scene in self.scenes)])

    def __len__(self) -> int:
        """Return how many pairs there are."""
        return int(self._starts[-1])

    def locate(self, k: int) -> tuple[Scene, int]:
        """Return the scene of pair ``k`` and the pair's number in it.

        Raises:
            IndexError: if there is no such pair.
        """
        if not 0 <= k < len(self):
            raise IndexError(f"pair {k} of {len(self)}")
        s = int(np.searchsorted(self._starts, k, side="right")) - 1
        return self.scenes[s], int(k - self._starts[s])

    def first(self, scene: int) -> int:
        """Return the number of the first pair of the scene at this place of ``scenes``."""
        return int(self._starts[scene])

    def has(self, scene: Scene, i: int, modality: str) -> bool:
        """Say whether an image exists in a modality; an engine may have failed on it."""
        return modality == RGB or scene.image_id(i) not in self._failed[modality]

    def offers(self, scene: Scene, modality: str) -> bool:
        """Say whether a scene can give a modality at all; of photographs without depth there are no depth images."""
        return modality == RGB or scene.name not in self._lacking[modality]

    def image(self, scene: Scene, i: int, modality: str = RGB) -> np.ndarray:
        """Return image ``i`` of a scene as (H, W, 3) uint8 RGB.

        Raises:
            ConfigError: if the modality is not one of this source.
            DataError: if the file is missing or damaged, or its size is not the index's.
        """
        if modality == RGB:
            image, where = read_image(self.raw / scene.image[i]), str(self.raw / scene.image[i])
        else:
            path = self.shard_path(scene.name, modality)
            with self._shards.use(path) as shard:
                data = shard.encoded(scene.image_id(i))
            where = f"{scene.image_id(i)} in {path}"
            image = decode(data, where)  # threads do this side by side
        if (image.shape[1], image.shape[0]) != tuple(scene.size[i]):
            raise DataError(
                f"{where} is {image.shape[1]} x {image.shape[0]}, the index says {scene.size[i][0]} x "
                f"{scene.size[i][1]}; make the index again with {redo('index')}"
            )
        return image

    def shard_path(self, scene: str, modality: str) -> Path:
        """Return the file that holds a scene in a synthesised modality.

        Raises:
            ConfigError: if the modality is not one of this source.
        """
        if modality not in self.names or self.modalities is None:
            raise ConfigError(f"unknown modality: {unknown(modality, [RGB, *self.names], 'this source')}")
        return self.modalities / modality / f"{scene}.h5"

    def depth(self, scene: Scene, i: int) -> np.ndarray | None:
        """Return the (H, W) float32 depth of an image, None where the data set has none.

        Raises:
            DataError: if the file is missing, damaged or of another size than the image.
        """
        if not scene.depth[i]:
            return None
        depth = read_depth(self.raw / scene.depth[i])
        if (depth.shape[1], depth.shape[0]) != tuple(scene.size[i]):
            raise DataError(f"{self.raw / scene.depth[i]} has another size than its image; replace it")
        return depth

    def load(self, k: int, modality0: str = RGB, modality1: str = RGB) -> Pair:
        """Return pair ``k`` with each view in its modality."""
        scene, pair = self.locate(k)
        i, j = (int(n) for n in scene.pairs[pair])
        view0, view1 = self._view(scene, i, modality0), self._view(scene, j, modality1)
        overlap = float(scene.overlap[pair])
        if scene.H_0to1 is not None:
            return Pair(view0, view1, H_0to1=torch.from_numpy(scene.H_0to1[pair]), overlap=overlap)
        return Pair(view0, view1, T_0to1=motion(scene, i, j), overlap=overlap)

    def _view(self, scene: Scene, i: int, modality: str) -> View:
        depth = self.depth(scene, i)
        return View(
            to_tensor(self.image(scene, i, modality)),
            modality,
            scene.image_id(i),
            _known(scene.K[i]),
            _known(scene.T_w2c[i]),
            None if depth is None else torch.from_numpy(depth),
        )

    def digest(self) -> str:
        """Return the sha256 of the index and of which pairs are offered."""
        without = {name: sorted(failed) for name, failed in self._failed.items()}
        return digest([index_digest(self.index), self.split, self.names, without])

    def close(self) -> None:
        """Close all shards; they open again when needed."""
        self._shards.close()


def motion(scene: Scene, i: int, j: int) -> torch.Tensor:
    """Return the (4, 4) float64 motion from camera ``i`` to camera ``j``.

    Raises:
        DataError: if a pose is missing.
    """
    for n in (i, j):
        if not np.isfinite(scene.T_w2c[n]).all():
            raise DataError(f"{scene.image_id(n)} has no finite pose; make the index again with {redo('index')}")
    return relative_pose(torch.from_numpy(scene.T_w2c[i]), torch.from_numpy(scene.T_w2c[j]))


def _known(values: np.ndarray) -> torch.Tensor | None:
    return torch.from_numpy(values) if np.isfinite(values).all() else None
