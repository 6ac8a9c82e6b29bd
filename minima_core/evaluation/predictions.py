"""Matches on disk: one HDF5 file for all pairs of a benchmark, so that new thresholds need no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import torch

from minima_core.errors import DataError, redo
from minima_core.io.hdf5 import new_hdf5, reading
from minima_core.types import Matches

VERSION = 1


@dataclass(frozen=True)
class Origin:
    """What predictions were made from; stored with them.

    Attributes:
        benchmark: its name.
        benchmark_digest: data digest of its manifest.
        model: digest of the model's card.
        protocol: name.
        matching_digest: digest of the protocol's matching part.
        licence: under which the matches may be used, the model's and the data's together.
        skipped: why there are none.
    """

    benchmark: str
    benchmark_digest: str
    model: str
    protocol: str
    matching_digest: str
    licence: str
    skipped: str = ""


@dataclass(frozen=True)
class Predictions:
    """Matches of N pairs end to end, M in total, in original pixels.

    Attributes:
        origin: what made them.
        names: N names of pairs, in the benchmark's order.
        offset: (N + 1,) int64; pair i owns the rows offset[i] to offset[i + 1].
        kpts0: (M, 2) float32.
        kpts1: (M, 2) float32.
        scores: (M,) float32.
    """

    FILE: ClassVar[str] = "predictions.h5"
    origin: Origin
    names: list[str]
    offset: np.ndarray
    kpts0: np.ndarray
    kpts1: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Matches:
        rows = slice(int(self.offset[i]), int(self.offset[i + 1]))
        return Matches(*(torch.from_numpy(a[rows].copy()) for a in (self.kpts0, self.kpts1, self.scores)))

    def __iter__(self) -> Iterator[Matches]:
        return (self[i] for i in range(len(self)))

    def save(self, folder: Path) -> Path:
        """Write ``predictions.h5`` into ``folder`` atomically and return its path; equal matches give equal bytes."""
        path = folder / self.FILE
        with new_hdf5(path) as file:
            file.attrs["version"] = VERSION
            for field in fields(Origin):
                file.attrs[field.name] = getattr(self.origin, field.name)
            file.create_dataset("name", data=np.array(self.names, dtype=h5py.string_dtype()))
            for key in ("offset", "kpts0", "kpts1", "scores"):
                file.create_dataset(key, data=getattr(self, key))
        return path


def collect(origin: Origin, names: Sequence[str], matches: Sequence[Matches]) -> Predictions:
    """Lay the matches of pairs end to end."""
    offset = np.zeros(len(matches) + 1, np.int64)
    np.cumsum([len(m) for m in matches], out=offset[1:])
    laid = {"mkpts0": np.zeros((offset[-1], 2), np.float32), "mkpts1": np.zeros((offset[-1], 2), np.float32)}
    scores = np.zeros(offset[-1], np.float32)
    for start, found in zip(offset, matches, strict=False):
        rows = slice(int(start), int(start) + len(found))
        laid["mkpts0"][rows], laid["mkpts1"][rows] = found.mkpts0.numpy(), found.mkpts1.numpy()
        scores[rows] = found.scores.numpy()
    return Predictions(origin, list(names), offset, laid["mkpts0"], laid["mkpts1"], scores)


def read_predictions(folder: Path) -> Predictions:
    """Read ``predictions.h5`` of a folder.

    Raises:
        DataError: if the file is missing, damaged or of another version.
    """
    path = folder / Predictions.FILE
    if not path.is_file():
        raise DataError(f"no {path}; match the benchmark first with `dvc repro match`")
    with reading(str(path), f"make it again with {_again(folder)}"), h5py.File(path, "r") as file:
        if file.attrs["version"] != VERSION:
            raise DataError(f"{path} is of version {file.attrs['version']}, not {VERSION}; run {_again(folder)}")
        origin = Origin(**{field.name: str(file.attrs[field.name]) for field in fields(Origin)})
        names = [str(name) for name in file["name"].asstr()[:]]
        offset, kpts0, kpts1, scores = (file[key][:] for key in ("offset", "kpts0", "kpts1", "scores"))
    if len(offset) != len(names) + 1 or not offset[-1] == len(kpts0) == len(kpts1) == len(scores):
        raise DataError(f"{path} is damaged (offsets do not fit); make it again with {_again(folder)}")
    return Predictions(origin, names, offset, kpts0, kpts1, scores)


def _again(folder: Path) -> str:
    """Return the command for predictions/<matcher>/<model>/<benchmark> of the graph, or for a folder by hand."""
    if folder.parts[-4:-3] != ("predictions",):
        return "`minima evaluate --keep`"
    return redo(f"match@{'-'.join(folder.parts[-3:])}")
