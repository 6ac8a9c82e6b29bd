"""Synthesised images on disk: one HDF5 shard a scene, encoded bytes found by image id."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import h5py
import numpy as np

from minima_core.errors import DataError, redo
from minima_core.io.hdf5 import new_hdf5
from minima_core.io.images import decode, decode_raw


class Entry(NamedTuple):
    """One image of a shard: its id, encoded bytes, JSON of what was drawn, and raw values as ``encode_raw`` makes."""

    name: str
    data: bytes
    drawn: str
    raw: bytes = b""


def write_shard(path: Path, items: Iterable[tuple[str, bytes, str] | Entry]) -> None:
    """Write (image id, encoded bytes, JSON of what was drawn) triples, in order; equal items give equal bytes.

    The bytes lie end to end in one data set with an offset table, so that a shard of thousands of images opens as
    fast as one of ten. Raw values, where there are any, lie in a second such pair.
    """
    entries = [Entry(*item) for item in items]
    with new_hdf5(path) as file:
        file.create_dataset("id", data=np.array([e.name for e in entries], dtype=h5py.string_dtype()))
        file.create_dataset("drawn", data=np.array([e.drawn for e in entries], dtype=h5py.string_dtype()))
        _write_blobs(file, "data", "offset", [e.data for e in entries])
        if any(e.raw for e in entries):
            _write_blobs(file, "raw", "raw_offset", [e.raw for e in entries])


def _write_blobs(file: h5py.File, name: str, table: str, blobs: Sequence[bytes]) -> None:
    offsets = np.zeros(len(blobs) + 1, np.int64)
    np.cumsum([len(blob) for blob in blobs], out=offsets[1:])
    file.create_dataset(table, data=offsets)
    file.create_dataset(name, data=np.frombuffer(b"".join(blobs), np.uint8))


class Shard:
    """A shard opened for reading; a context manager, and safe to keep open in a loader's worker."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = h5py.File(path, "r")
            self.ids = [str(name) for name in self._file["id"].asstr()[:]]
            self._offset = self._file["offset"][:]
            self._data = self._file["data"]
        except (OSError, KeyError) as error:
            raise DataError(f"cannot read shard {path}: {error}; make it again with {self._again}") from None
        if len(self._offset) != len(self.ids) + 1 or self._offset[-1] != len(self._data):
            raise DataError(f"shard {path} is damaged (offsets do not fit); make it again with {self._again}")
        self._position = {name: i for i, name in enumerate(self.ids)}

    @property
    def _again(self) -> str:
        return redo(f"synthesise@{self.path.parent.name}")

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
        return self._data[self._offset[i] : self._offset[i + 1]].tobytes()

    def entries(self) -> Iterator[Entry]:
        """Yield all images in their order; a table is read once, not once an image."""
        drawn, data = self._file["drawn"].asstr()[:], self._data[:]
        has_raw = "raw" in self._file
        raw = self._file["raw"][:] if has_raw else data[:0]
        raw_offset = self._file["raw_offset"][:] if has_raw else np.zeros_like(self._offset)
        for i, name in enumerate(self.ids):
            blobs = [some[ends[i] : ends[i + 1]].tobytes() for some, ends in ((data, self._offset), (raw, raw_offset))]
            yield Entry(name, blobs[0], str(drawn[i]), blobs[1])

    def encoded_raw(self, name: str) -> bytes:
        """Return the raw values of an image id as they lie in the file; none where the engine kept none."""
        if "raw" not in self._file:
            return b""
        i = self._position[name]
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
        return decode_raw(data, json.loads(self.drawn(name))["raw_range"], f"raw {name} in {self.path}")

    def drawn(self, name: str) -> str:
        """Return the JSON of what the engine drew for an image id."""
        return str(self._file["drawn"].asstr()[self._position[name]])

    def image(self, name: str) -> np.ndarray:
        """Return an image id's picture as (H, W, 3) uint8 RGB."""
        return decode(self.encoded(name), f"{name} in {self.path}")
