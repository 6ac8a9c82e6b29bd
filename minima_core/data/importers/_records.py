"""What legacy index files say of a scene, and how it becomes a scene of ours; a private helper of three forms."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from pydantic import Field

from minima_core.data.importers.base import Importer, Settings, Skipped, inside, splits
from minima_core.data.index import Scene
from minima_core.errors import DataError
from minima_core.geometry.coords import from_corner_origin
from minima_core.io.images import SUFFIXES, image_size
from minima_core.io.pickled import read_arrays
from minima_core.manifest import Split
from minima_core.random import rng

PREFIXES = ("", "phoenix/S6/zl548/MegaDepth_v1/", "Undistorted_SfM/")  # of paths that start below MegaDepth's folders
BELOW = (".", "train", "test", "..", "../train", "../test")  # where images lie beside an index; the published layouts


@dataclass(frozen=True)
class Records:
    """A scene of D2-Net's form as LoFTR, glue-factory and RoMa have it; N images with holes, M pairs.

    Attributes:
        image: N paths or None.
        depth: N paths or None.
        K: N (3, 3) or None; the centre of the first pixel is (0.5, 0.5), as COLMAP counts.
        T_w2c: N (4, 4) or None.
        pairs: (M, 2) int64.
        overlap: (M,) float64.
    """

    image: list[str | None]
    depth: list[str | None]
    K: list[Any]
    T_w2c: list[Any]
    pairs: np.ndarray
    overlap: np.ndarray

    @classmethod
    def of(cls, path: Path, found: Mapping[str, Any], pairs: np.ndarray, overlap: np.ndarray) -> Records:
        """Return the records in a file's arrays.

        Raises:
            DataError: if an array is missing or of another length than the others, or a path leads out of its folder.
        """
        try:
            image, depth, K, T_w2c = (list(found[k]) for k in ("image_paths", "depth_paths", "intrinsics", "poses"))
        except KeyError as error:
            raise DataError(
                f"{path} has no {error.args[0]}; give an index file of another form, or get it again"
            ) from None
        except TypeError as error:
            raise DataError(f"{path} holds no lists of records ({error}); get it again") from None
        n = len(image)
        if not len(depth) == len(K) == len(T_w2c) == n or overlap.shape != (len(pairs),):
            raise DataError(f"{path} holds {n} images, {len(depth)} depth maps, {len(K)} cameras; get it again")
        if len(pairs) and (pairs.min() < 0 or pairs.max() >= n):
            raise DataError(f"{path} pairs image {pairs.max()} of {n}; get it again")
        for given in (*image, *depth):
            if isinstance(given, str) and (given.startswith("/") or ".." in given.split("/") or "\0" in given):
                raise DataError(f"{path} is refused: it names {given!r}, which leads out of its folder; get it again")
        return cls(image, depth, K, T_w2c, pairs, overlap)


def as_pairs(path: Path, values: Any) -> np.ndarray:
    """Return (M, 2) int64 of what a file holds as pairs.

    Raises:
        DataError: if it is no such thing.
    """
    try:
        pairs = np.array(list(values), dtype=np.int64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path} holds no pairs of numbers ({error}); get it again") from None
    return pairs


class Tree:
    """Files below a folder, found by relative path; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[str, dict[str, str]] = {}

    def find(self, relative: str, suffixes: frozenset[str] = frozenset()) -> str:
        """Return the path relative to the root of a file, or of one of the same stem and a suffix of these; "" if none.

        Raises:
            DataError: if a link leads out of the root.
        """
        for prefix in PREFIXES:
            path = PurePosixPath(prefix) / relative
            listed = self._list(str(path.parent))
            for name in (path.name, *((path.stem + suffix).lower() for suffix in sorted(suffixes))) if listed else ():
                if name in listed:
                    return str(path.with_name(listed[name]))
        return ""

    def _list(self, folder: str) -> dict[str, str]:
        """Return the names in a folder by themselves and by their lower case."""
        if folder not in self._folders:
            try:
                with os.scandir(self.root / folder) as entries:
                    files = sorted(entries, key=lambda entry: entry.name)
                if files:
                    inside(self.root, self.root / folder)
            except (FileNotFoundError, NotADirectoryError):
                files = []
            for entry in files:
                if entry.is_symlink():
                    inside(self.root, self.root / folder / entry.name)
            self._folders[folder] = {entry.name.lower(): entry.name for entry in files} | {
                e.name: e.name for e in files
            }
        return self._folders[folder]


class LegacySettings(Settings):
    """Settings of the three legacy forms."""

    overlap: tuple[float, float] = (0.0, 1.0)  # of the pairs to take, above the first and up to the second
    prefer_imgs: bool = False  # take MegaDepth_v1's own image beside the depth map before the undistorted one
    max_pairs: Annotated[int, Field(ge=1)] = 100_000  # a scene; of more that many are drawn


class Legacy(Importer):
    """Index files that name the images of MegaDepth, or of anything else that was brought into that form."""

    class Params(LegacySettings):
        """Settings."""

    lists: ClassVar[dict[Split, str]] = {}  # files that name the scenes of each split, in or beside the source
    home: Path | None = None  # in or beside which the images are looked for, if not the folder of the index

    @property
    def settings(self) -> LegacySettings:
        """The settings with their type."""
        return cast("LegacySettings", self.params)

    @abstractmethod
    def files(self) -> dict[str, list[Path]]:
        """Return the index files of each scene."""

    @abstractmethod
    def read(self, path: Path) -> Records:
        """Return what one index file holds."""

    @cached_property
    def root(self) -> Path | None:
        """The folder that the image paths start from; None where only the index is there."""
        trees = [Tree(self.images)] if self.images else [Tree((self.home or self.source) / below) for below in BELOW]
        example = ""
        for path, *_ in self.files().values():  # of a subset of the images the first scenes may have none
            records = self.read(path)
            sample = [(i, d) for i, d in zip(records.image, records.depth, strict=True) if i is not None]
            example = example or next((image for image, _ in sample), "")
            for tree in trees:
                if any(self._image(tree, image, depth) for image, depth in sample):
                    return tree.root.resolve()
        if self.images:
            raise DataError(f"{self.images} holds none of the images of {self.source}, for example no {example}")
        return None

    @cached_property
    def _splits(self) -> dict[str, Split]:
        listed: dict[str, Split] = {}
        for split, name in self.lists.items():
            places = (self.source / name, self.source.parent / name, *sorted(self.source.glob(f"*/{name}")))
            if path := next((path for path in places if path.is_file()), None):
                try:
                    lines = path.read_text(encoding="utf-8").split()
                except (OSError, UnicodeDecodeError) as error:
                    raise DataError(f"{path} is no list of scenes ({error}); mend or remove it") from None
                listed |= {self.scene_of(line): split for line in lines}
        return splits(self.files(), self.settings.validation_share, seed=self.seed, listed=listed)

    def scene_of(self, part: str) -> str:
        """Return the scene of an index file by what a list calls that."""
        return part

    def names(self, out: Path) -> list[str]:  # noqa: ARG002
        """Return the names of the scenes."""
        return sorted(self.files())

    def scene(self, out: Path, name: str, skipped: Skipped, *, workers: int = 1) -> Scene | None:  # noqa: ARG002
        """Return the images and pairs that the scene's files list."""
        return self._scene(name, [self.read(path) for path in self.files()[name]], skipped)

    def _image(self, tree: Tree, image: str, depth: str | None) -> str:
        """Return where an image lies: by its own path, or as MegaDepth_v1 has it beside the depth map."""
        beside = depth.replace("depths", "imgs").replace(".h5", ".jpg") if depth and "Undistorted_SfM" in image else ""
        paths = [beside, image] if self.settings.prefer_imgs else [image, beside]
        return next((found for path in paths if path and (found := tree.find(path, SUFFIXES))), "")

    def _scene(self, name: str, parts: Sequence[Records], skipped: Skipped) -> Scene | None:
        first = parts[0]
        if any(part.image != first.image for part in parts[1:]):
            raise DataError(f"the files of scene {name} in {self.source} list different images; get them again")
        pairs = np.concatenate([part.pairs for part in parts])
        overlap = np.concatenate([part.overlap for part in parts])
        split = self._splits[name]
        paired = np.zeros(len(first.image), bool)
        paired[pairs.ravel()] = True
        images = _Images(first, self, None if self.root is None else Tree(self.root), needs_depth=split != "test")
        images.look(name, paired, skipped)
        pairs, overlap = self._usable(name, first, pairs, overlap, images.good, skipped)
        if not len(pairs):
            return None
        kept = np.unique(pairs)
        K = np.array([images.K[i] for i in kept])
        K[:, :2, 2] = from_corner_origin(torch.from_numpy(K[:, :2, 2])).numpy()
        return Scene(
            name,
            split,
            [images.image[i] for i in kept],
            [images.depth[i] for i in kept],
            [""] * len(kept),
            np.array([images.size[i] for i in kept], np.int64),
            K,
            np.array([images.T_w2c[i] for i in kept]),
            np.searchsorted(kept, pairs),
            overlap,
        )

    def _usable(
        self, name: str, records: Records, pairs: np.ndarray, overlap: np.ndarray, good: np.ndarray, skipped: Skipped
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs that can be used, sorted, and their overlap."""
        low, high = self.settings.overlap
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        pairs, overlap = pairs[order], overlap[order]
        twice = np.zeros(len(pairs), bool)
        twice[1:] = (pairs[1:] == pairs[:-1]).all(1)
        left_out = {
            "pair of an image with itself": pairs[:, 0] == pairs[:, 1],
            "pair listed twice": twice,
            "pair with an image that is left out": ~good[pairs].all(1),
            f"pair whose overlap is not in ({low:g}, {high:g}]": ~((overlap > low) & (overlap <= high)),
        }
        kept = np.ones(len(pairs), bool)
        for reason, bad in left_out.items():
            these = np.flatnonzero(bad & kept)
            examples = [f"{records.image[i]} - {records.image[j]}" for i, j in pairs[these[:5]]]
            skipped.add(reason, examples, len(these))
            kept &= ~bad
        where = np.flatnonzero(kept)
        if len(where) > self.settings.max_pairs:
            skipped.add("pair beyond max_pairs of a scene", [name], len(where) - self.settings.max_pairs)
            drawn = rng(self.seed, name, "pairs").choice(len(where), self.settings.max_pairs, replace=False)
            where = where[np.sort(drawn)]
        return pairs[where], overlap[where]


class _Images:
    """The images of a scene: where they lie, their sizes and cameras, and which of them can be used."""

    def __init__(self, records: Records, importer: Legacy, tree: Tree | None, *, needs_depth: bool) -> None:
        n = len(records.image)
        self.records, self.importer, self.tree, self.needs_depth = records, importer, tree, needs_depth
        self.good = np.zeros(n, bool)
        self.image, self.depth = [""] * n, [""] * n
        self.size = [(0, 0)] * n  # of an image that is not there
        self.K, self.T_w2c = [_matrix(K, 3) for K in records.K], [_matrix(T, 4) for T in records.T_w2c]

    def look(self, name: str, paired: np.ndarray, skipped: Skipped) -> None:
        """Find all images that are in a pair."""
        stems: set[str] = set()
        for i, given in enumerate(self.records.image):
            if not isinstance(given, str):
                skipped.add("record without an image", [f"{name} record {i}"])
            elif not paired[i]:
                skipped.add("image in no pair", [given])
            elif reason := self._problem(i, given) or (
                "image of the same name in the scene" if _stem(given) in stems else ""
            ):
                skipped.add(reason, [given])
            else:
                stems.add(_stem(given))
                self.good[i] = True

    def _problem(self, i: int, given: str) -> str:
        """Find an image; return why it cannot be used, "" if it can."""
        if self.K[i] is None or self.T_w2c[i] is None:
            return "image without a camera or a pose"
        depth = self.records.depth[i]
        depth = depth if isinstance(depth, str) else ""
        if self.tree is None:
            self.image[i], self.depth[i] = given, depth
            return ""
        self.image[i] = self.importer._image(self.tree, given, depth)
        self.depth[i] = self.tree.find(depth) if depth else ""
        if not self.image[i]:
            return "image that is not there"
        if self.needs_depth and not self.depth[i]:
            return "image whose depth map is not there, needed for training"
        try:
            self.size[i] = image_size(self.tree.root / self.image[i])
        except DataError:
            return "image that cannot be read"
        return ""


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def _matrix(values: Any, side: int) -> np.ndarray | None:
    """Return a (side, side) float64 matrix of finite numbers, None where there is no such thing."""
    try:
        matrix = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return matrix if matrix.shape == (side, side) and np.isfinite(matrix).all() else None


def index_files(source: Path, pattern: str, what: str) -> list[Path]:
    """Return the files below a folder whose name is like ``pattern``, sorted.

    Raises:
        DataError: if there is none, or one is a link that leads elsewhere.
    """
    found = [inside(source, path) for path in sorted(source.rglob(pattern)) if not path.name.startswith(".")]
    if not found:
        raise DataError(f"no {what} in {source}; give the folder that holds them with --source")
    return found


def arrays(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return the named arrays of an index file.

    Raises:
        DataError: if one is missing.
    """
    found = read_arrays(path, names)
    if missing := [name for name in names if name not in found]:
        raise DataError(f"{path} has no {missing[0]}; it is of another form, see --from")
    return found
