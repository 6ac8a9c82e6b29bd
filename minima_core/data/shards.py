"""Synthesised images on disk: one HDF5 shard a scene, encoded bytes found by image id."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import compress, pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import h5py
import numpy as np

from minima_core.errors import DataError, redo
from minima_core.io.atomic import atomic_path
from minima_core.io.hdf5 import new_hdf5, reading
from minima_core.io.images import decode, decode_raw


class Entry(NamedTuple):
    """One image of a shard: its id, encoded bytes, JSON of what was drawn, and raw values as ``encode_raw`` makes."""

    name: str
    data: bytes
    drawn: str
    raw: bytes = b""


OFFSETS = {"data": "offset", "raw": "raw_offset"}  # data set of bytes -> its table


def write_shard(path: Path, items: Iterable[tuple[str, bytes, str] | Entry]) -> None:
    """Write (image id, encoded bytes, JSON of what was drawn) triples, in order; equal items give equal bytes.

    The bytes lie end to end in one data set with an offset table, so that a shard of thousands of images opens as
    fast as one of ten. Raw values, where there are any, lie in a second such pair.
    """
    entries = [Entry(*item) for item in items]
    names, drawn = [e.name for e in entries], [e.drawn for e in entries]
    sizes = {"data": [len(e.data) for e in entries], "raw": [len(e.raw) for e in entries]}
    with new_hdf5(path) as file:
        for kind, dataset in _tables(file, names, drawn, sizes):
            end = 0
            for blob in (getattr(e, kind) for e in entries):
                start, end = end, end + len(blob)
                dataset[start:end] = np.frombuffer(blob, np.uint8)


def _tables(
    file: h5py.File, names: Sequence[str], drawn: Sequence[str], sizes: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Write what a shard holds beside the bytes; yield the data sets that those go to, each to fill before the next."""
    file.create_dataset("id", data=np.array(names, dtype=h5py.string_dtype()))
    file.create_dataset("drawn", data=np.array(drawn, dtype=h5py.string_dtype()))
    for kind, table in OFFSETS.items():
        if kind == "data" or any(sizes[kind]):
            offsets = np.concatenate([[0], np.cumsum(sizes[kind], dtype=np.int64)])
            file.create_dataset(table, data=offsets)
            yield kind, file.create_dataset(kind, (int(offsets[-1]),), np.uint8)


def merge_shards(path: Path, parts: Sequence[Path]) -> None:
    """Write the images of ``parts`` that have bytes, in order: the file that ``write_shard`` makes of them.

    A scene's bytes may be more than the memory, so that those of one part are in it at a time: the HDF5 library lays
    the file out, with holes that the images are written into.

    Raises:
        DataError: if a part cannot be read, or when the disk is full.
    """
    names: list[str] = []
    drawn: list[str] = []
    sizes: dict[str, list[int]] = {kind: [] for kind in OFFSETS}
    made: list[np.ndarray] = []  # of each part, which images have bytes
    for part in parts:
        with Shard(part) as shard:
            made.append(shard.sizes("data") > 0)
            names += compress(shard.ids, made[-1])
            drawn += compress(shard.facts().values(), made[-1])
            for kind, found in sizes.items():
                found += shard.sizes(kind)[made[-1]].tolist()
    with atomic_path(path) as temporary:
        places = _lay_out(temporary, names, drawn, sizes)
        with temporary.open("r+b") as out:
            for kind, place in places:
                out.seek(place)
                for part, has in zip(parts, made, strict=True):
                    with Shard(part) as shard:
                        out.writelines(compress(shard.blobs(kind), has))


def _lay_out(
    path: Path, names: Sequence[str], drawn: Sequence[str], sizes: Mapping[str, Sequence[int]]
) -> list[tuple[str, int]]:
    """Write a shard with holes in the place of the images' bytes; return where those belong."""
    places = []
    room = 2**20 + sum(map(len, (*names, *drawn))) * 4 + len(names) * 200  # more than all but the holes take
    with path.open("wb") as file:  # the library may crash the process on a full disk: this fails before it does
        file.write(bytes(room))
        file.truncate(room + sum(map(sum, sizes.values())))
    with h5py.File(path, "w") as file:
        for kind, dataset in _tables(file, names, drawn, sizes):
            dataset[:1] = 0  # the library gives a data set its place when the first byte is written
            if len(dataset):
                places.append((kind, dataset.id.get_offset()))
    return places


class Shard:
    """A shard opened for reading; a context manager, and safe to keep open in a loader's worker."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._reading():
            self._file = h5py.File(path, "r")
            self.ids = [str(name) for name in self._file["id"].asstr()[:]]
            self._offset = self._file["offset"][:]
            self._data = self._file["data"]
            fits = len(self._offset) == len(self.ids) + 1 and self._offset[-1] == len(self._data)
        if not fits:
            raise DataError(f"shard {path} is damaged (offsets do not fit); make it again with {self._again}")
        self._position = {name: i for i, name in enumerate(self.ids)}

    @property
    def _again(self) -> str:
        return redo(f"synthesise@{self.path.parent.name}")

    def _reading(self) -> AbstractContextManager[None]:
        return reading(f"shard {self.path}", f"make it again with {self._again}")

    def __enter__(self) -> Shard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._position

    def encoded(self, name: str) -> bytes:
        """Return the encoded bytes of an image id.

        Raises:
            DataError: if the shard has no such image.
        """
        if name not in self._position:
            raise DataError(f"shard {self.path} has no image {name}; make it again with {self._again}")
        i = self._position[name]
        with self._reading():
            return self._data[self._offset[i] : self._offset[i + 1]].tobytes()

    def facts(self) -> dict[str, str]:
        """Return the JSON of what the engine drew for each image id, in their order."""
        with self._reading():
            return dict(zip(self.ids, map(str, self._file["drawn"].asstr()[:]), strict=True))

    def sizes(self, kind: str) -> np.ndarray:
        """Return (N,) how many bytes of ``kind``, ``data`` or ``raw``, each image has."""
        return np.diff(self._offsets(kind))

    def blobs(self, kind: str) -> Iterator[bytes]:
        """Yield the bytes of ``kind``, ``data`` or ``raw``, of all images in their order; the file is read once."""
        offsets = self._offsets(kind)
        with self._reading():
            values = self._file[kind][:] if offsets[-1] else np.zeros(0, np.uint8)
        for start, end in pairwise(offsets):
            yield values[start:end].tobytes()

    def _offsets(self, kind: str) -> np.ndarray:
        with self._reading():
            return self._file[OFFSETS[kind]][:] if kind in self._file else np.zeros_like(self._offset)

    def encoded_raw(self, name: str) -> bytes:
        """Return the raw values of an image id as they lie in the file; none where the engine kept none."""
        if "raw" not in self._file:
            return b""
        i = self._position[name]
        with self._reading():
            first, last = self._file["raw_offset"][i : i + 2]
            return self._file["raw"][first:last].tobytes()

    def raw(self, name: str) -> np.ndarray:
        """Return the (H, W) float32 values that an image id's picture was drawn from, to 1/65535 of their range.

        Raises:
            DataError: if the engine kept none.
        """
        data = self.encoded_raw(name) if name in self else b""
        if not data:
            raise DataError(f"shard {self.path} holds no raw values of {name}; its engine keeps none")
        with self._reading():
            drawn = json.loads(self.drawn(name))["raw_range"]
        return decode_raw(data, drawn, f"raw {name} in {self.path}")

    def drawn(self, name: str) -> str:
        """Return the JSON of what the engine drew for an image id."""
        with self._reading():
            return str(self._file["drawn"].asstr()[self._position[name]])

    def image(self, name: str) -> np.ndarray:
        """Return an image id's picture as (H, W, 3) uint8 RGB."""
        return decode(self.encoded(name), f"{name} in {self.path}")
