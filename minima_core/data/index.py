"""The one pair index: an HDF5 file a scene, the same for every data set and every matcher."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from minima_core.errors import DataError, redo
from minima_core.io.hdf5 import new_hdf5, reading
from minima_core.manifest import SceneManifest, Split, file_sha256


@dataclass(frozen=True)
class Scene:
    """The images and pairs of one scene.

    Attributes:
        name: unique in the data set; no slash.
        split: train, val or test.
        image: N paths relative to the raw folder.
        depth: N paths of depth maps, "" where there is none.
        material: N paths of material id maps (uint8 PNG), "" where there is none.
        size: (N, 2) int64 width and height.
        K: (N, 3, 3) float64, NaN where unknown.
        T_w2c: (N, 4, 4) float64, NaN where unknown.
        pairs: (M, 2) int64 indices into the images.
        overlap: (M,) float64 share of image 0 that image 1 sees.
        H_0to1: (M, 3, 3) float64, or None where depth and pose relate the pairs.
    """

    name: str
    split: Split
    image: list[str]
    depth: list[str]
    material: list[str]
    size: np.ndarray
    K: np.ndarray
    T_w2c: np.ndarray
    pairs: np.ndarray
    overlap: np.ndarray
    H_0to1: np.ndarray | None = None

    def __post_init__(self) -> None:
        n, m = len(self.image), len(self.pairs)
        shapes = {
            "depth": (len(self.depth), n),
            "material": (len(self.material), n),
            "size": (self.size.shape, (n, 2)),
            "K": (self.K.shape, (n, 3, 3)),
            "T_w2c": (self.T_w2c.shape, (n, 4, 4)),
            "pairs": (self.pairs.shape, (m, 2)),
            "overlap": (self.overlap.shape, (m,)),
        }
        if self.H_0to1 is not None:
            shapes["H_0to1"] = (self.H_0to1.shape, (m, 3, 3))
        for field, (got, wanted) in shapes.items():
            if got != wanted:
                raise DataError(f"scene {self.name}: {field} has shape {got}, {wanted} expected")
        if m and (self.pairs.min() < 0 or self.pairs.max() >= n):
            raise DataError(f"scene {self.name}: a pair points at an image that is not there (0 to {n - 1} are)")

    def image_id(self, i: int) -> str:
        """Return the id that seeds and shards know image ``i`` by: ``scene/stem``."""
        return f"{self.name}/{Path(self.image[i]).stem}"


_TEXT = ("image", "depth", "material")
_ARRAYS = ("size", "K", "T_w2c", "pairs", "overlap")


def write_scene(folder: Path, scene: Scene) -> None:
    """Write ``<folder>/<scene.name>.h5`` atomically; equal scenes give equal bytes."""
    with new_hdf5(folder / f"{scene.name}.h5") as file:
        file.attrs["name"] = scene.name
        file.attrs["split"] = scene.split
        for field in _TEXT:
            file.create_dataset(field, data=np.array(getattr(scene, field), dtype=h5py.string_dtype()))
        for field in _ARRAYS:
            file.create_dataset(field, data=getattr(scene, field))
        if scene.H_0to1 is not None:
            file.create_dataset("H_0to1", data=scene.H_0to1)


def read_scene(folder: Path, name: str) -> Scene:
    """Read one scene of an index.

    Raises:
        DataError: if the file is missing or no scene.
    """
    path = folder / f"{name}.h5"
    with reading(str(path), f"make the index again with {redo('index')}"), h5py.File(path, "r") as file:
        fields: dict[str, Any] = {field: [str(s) for s in file[field].asstr()[:]] for field in _TEXT}
        fields |= {field: file[field][:] for field in _ARRAYS}
        fields["H_0to1"] = file["H_0to1"][:] if "H_0to1" in file else None
        return Scene(str(file.attrs["name"]), file.attrs["split"], **fields)


def read_scenes(folder: Path, split: Split | None = None) -> Iterator[Scene]:
    """Yield the scenes of an index in the order of its manifest, all or those of one split."""
    for entry in SceneManifest.load(folder).scenes:
        if split is None or entry.split == split:
            yield read_scene(folder, entry.name)


def scene_folder(image: str) -> str:
    """Return what stands before ``dense<k>`` in an image's path: the folder of its scene, relative to the raw one."""
    parts = PurePosixPath(image).parts
    end = next((n for n, part in enumerate(parts[1:], 1) if re.fullmatch(r"dense\d+", part)), 1)
    return PurePosixPath(*parts[:end]).as_posix()


def scene_folders(raw: Path) -> list[str]:
    """Return the folders that hold a scene, relative to the raw one, sorted; a mixture has them one level deeper."""
    found = {path.parent for pattern in ("*/dense*", "*/*/dense*") for path in raw.glob(pattern) if path.is_dir()}
    return sorted(path.relative_to(raw).as_posix() for path in found)


def index_digest(folder: Path) -> str:
    """Return the sha256 that shards and certificates know an index by: over its manifest and every scene's records.

    Raises:
        DataError: if the manifest or a scene it names is missing.
    """
    names = [SceneManifest.FILE, *(f"{scene.name}.h5" for scene in SceneManifest.load(folder).scenes)]
    try:
        digests = [f"{name} {file_sha256(folder / name)}" for name in names]
    except FileNotFoundError as error:
        raise DataError(f"no {error.filename}; make the index again with {redo('index')}") from None
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
