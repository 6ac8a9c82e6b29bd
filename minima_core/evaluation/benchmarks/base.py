"""What a benchmark plugin is: it prepares pairs with ground truth; a prepared folder is read the same way for all."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from minima_core.config import checked, digest
from minima_core.errors import ConfigError, DataError, redo
from minima_core.evaluation.benchmarks._part import Part
from minima_core.io.images import read_image, to_tensor
from minima_core.manifest import BenchmarkManifest, Record, file_sha256
from minima_core.plugins import Plugins

logger = logging.getLogger(__name__)
Matrix = list[list[float]]
Task = Literal["pose", "homography", "overlap"]  # overlap: to tell pairs that show one place from those that do not


@dataclass(frozen=True)
class BenchmarkPair:
    """One pair to match and score.

    Attributes:
        name: unique in the benchmark.
        category: what the pair is counted under (``infrared``, ``RemoteSensing/SAR_Optical``).
        image0: (3, H, W) RGB float in [0, 1].
        image1: likewise.
        K0: (3, 3) float64, pose benchmarks only.
        K1: likewise.
        T_0to1: (4, 4) float64, pose benchmarks only.
        H_0to1: (3, 3) float64, homography benchmarks only.
    """

    name: str
    category: str
    image0: torch.Tensor
    image1: torch.Tensor
    K0: torch.Tensor | None = None
    K1: torch.Tensor | None = None
    T_0to1: torch.Tensor | None = None
    H_0to1: torch.Tensor | None = None


class PairTruth(BaseModel):
    """One pair as it is written down: which files, and what relates them. Matrices are as in ``BenchmarkPair``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    category: str
    image0: str  # relative to the benchmark's images
    image1: str
    sha0: str
    sha1: str
    size0: tuple[int, int]  # width and height
    size1: tuple[int, int]
    K0: Matrix | None = None
    K1: Matrix | None = None
    T_0to1: Matrix | None = None
    H_0to1: Matrix | None = None

    def tensor(self, field: Literal["K0", "K1", "T_0to1", "H_0to1"]) -> torch.Tensor:
        """Return a matrix as float64; raise DataError where this pair has none."""
        values = getattr(self, field)
        if values is None:
            raise DataError(f"pair {self.name} has no {field}; fetch the benchmark again")
        return torch.tensor(values, dtype=torch.float64)

    @property
    def related(self) -> bool:
        """Whether the two images show one place; only then is there something to be right about."""
        return self.T_0to1 is not None or self.H_0to1 is not None


class Lens(BaseModel):
    """The camera of an image that is undistorted whenever it is read, as the published evaluation does."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    K: Matrix  # of the file
    distortion: list[float]  # OpenCV's coefficients

    def straight(self, size: tuple[int, int]) -> np.ndarray:
        """Return the (3, 3) intrinsics of the undistorted image of ``size`` = (W, H), in which no border is black."""
        K, _ = cv2.getOptimalNewCameraMatrix(np.array(self.K), np.array(self.distortion), size, 0.0, size)
        return np.asarray(K, dtype=np.float64)

    def undistort(self, image: np.ndarray) -> np.ndarray:
        """Return an (H, W, 3) uint8 image without its distortion."""
        size = image.shape[1], image.shape[0]
        return cv2.undistort(image, np.array(self.K), np.array(self.distortion), None, self.straight(size))


class PairList(Record):
    """All pairs of a prepared benchmark (``pairs.json``) and how its categories are summed up."""

    FILE: ClassVar[str] = "pairs.json"
    REMEDY: ClassVar[str] = "fetch the benchmark again with `dvc repro fetch_benchmark`"
    version: Literal[1] = 1
    task: Task
    protocol: str  # that these homographies were drawn for; empty: the pairs are the same by all
    root: str = ""  # where the images lie; empty: in this folder
    headline: list[str]  # categories that the benchmark's own figure averages
    groups: dict[str, list[str]]  # further averages, reported beside the categories
    pairs: list[PairTruth]
    lenses: dict[str, Lens] = Field(default_factory=dict)  # of images that are undistorted when they are read
    # by pair, how far in pixels the truth is from landmarks that people set
    floor: dict[str, float] = Field(default_factory=dict)

    def digest(self) -> str:
        """Return the sha256 of what is matched and how it is scored, wherever the images lie."""
        aside = {"root", "floor", "protocol"} | (set() if self.lenses else {"lenses"})
        return digest(self.model_dump(mode="json", exclude=aside))

    def manifest(self, benchmark: str, licence: str, subset: str = "") -> BenchmarkManifest:
        """Return the manifest of these pairs, which may be a ``subset`` of the benchmark's."""
        counts: dict[str, int] = {}
        for pair in self.pairs:
            counts[pair.category] = counts.get(pair.category, 0) + 1
        return BenchmarkManifest(
            benchmark=benchmark,
            licence=licence,
            pairs=len(self.pairs),
            categories=counts,
            data_digest=self.digest(),
            subset=subset,
        )


class Prepared:
    """A prepared benchmark, opened for reading; its images are checked against the digests of the preparation."""

    def __init__(self, folder: Path) -> None:
        self.manifest = BenchmarkManifest.load(folder)
        self.list = PairList.load(folder)
        self.images = Path(self.list.root) if self.list.root else folder
        if self.manifest.data_digest != self.list.digest() and not self.manifest.skipped:
            raise DataError(f"{folder / PairList.FILE} does not belong to its manifest; {PairList.REMEDY}")

    def check_protocol(self, name: str) -> None:
        """Raise DataError if the pairs were drawn as another protocol than ``name`` draws them."""
        if self.list.protocol not in ("", name):
            raise DataError(
                f"the homographies of {self.manifest.benchmark} were drawn as {self.list.protocol} does, {name} draws "
                f"others; name it in evaluation.{self.manifest.benchmark}.protocol of params.yaml and fetch the "
                "benchmark again"
            )

    def image(self, reference: str, sha256: str, *, gray: bool = False) -> np.ndarray:
        """Return an image as (H, W, 3) uint8 RGB; ``gray`` as OpenCV reads it so, three times, for gray networks.

        Raises:
            DataError: if it is missing, damaged, or another one than when the benchmark was prepared.
        """
        path = self.images / reference
        if not path.is_file():
            raise DataError(
                f"no {path.absolute()}, which {self.manifest.benchmark} needs; bring it back or fetch the benchmark "
                "again"
            )
        if file_sha256(path) != sha256:
            raise DataError(
                f"{path} has changed since {self.manifest.benchmark} was prepared; fetch the benchmark again"
            )
        image, lens = _read_gray(path) if gray else read_image(path), self.list.lenses.get(reference)
        return image if lens is None else lens.undistort(image)

    def load(self, truth: PairTruth) -> BenchmarkPair:
        """Return a pair with its images."""
        fields: tuple[Literal["K0", "K1", "T_0to1", "H_0to1"], ...] = ("K0", "K1", "T_0to1", "H_0to1")
        return BenchmarkPair(
            truth.name,
            truth.category,
            to_tensor(self.image(truth.image0, truth.sha0)),
            to_tensor(self.image(truth.image1, truth.sha1)),
            **{field: truth.tensor(field) for field in fields if getattr(truth, field) is not None},
        )


def _read_gray(path: Path) -> np.ndarray:
    """Return (H, W, 3) uint8, as OpenCV reads a file gray; a form that it does not know is turned gray by its rule."""
    read = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    gray = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY) if read is None else read
    return gray[..., None].repeat(3, axis=2)


class Benchmark(ABC):
    """Pairs with ground truth; ``prepare`` brings them, ``pairs`` reads what it brought.

    Whatever is drawn at random is drawn from a seed in ``Params``: a benchmark must not change with the seed of a
    training run.
    """

    class Params(Part):
        """Settings, ``benchmark.<name>`` in params.yaml."""

    licence: ClassVar[str]
    task: ClassVar[Task]

    def __init__(self, params: Any, protocol: str) -> None:
        """Take checked settings, and the name of the protocol that the pairs are for: some draw pairs of their own."""
        self.params, self.protocol = params, protocol

    def prepare(self, folder: Path, *, scratch: Path, workers: int = 1) -> BenchmarkManifest:
        """Bring the benchmark into ``folder`` and return its manifest; absent data is ``skipped`` with the reason.

        The manifest is written last. ``scratch`` keeps what is unfinished, so that a killed run continues.

        Raises:
            DataError: naming the file that cannot be used.
        """
        name = type(self).__module__.rpartition(".")[2]
        reason = self.absent()
        if reason:
            reason += f", or change benchmark.{name} in params.yaml; then {redo(f'fetch_benchmark@{name}')}"
            logger.warning("%s is skipped: %s", name, reason)
            pairs = PairList(task=self.task, protocol="", headline=[], groups={}, pairs=[])
            manifest = BenchmarkManifest(benchmark=name, licence=self.licence, pairs=0, skipped=reason)
        else:
            pairs = self._prepare(folder, scratch, workers)
            if not pairs.pairs:
                raise DataError(
                    f"{name} has no pairs; give it other data or settings in benchmark.{name} of params.yaml"
                )
            names = Counter(pair.name for pair in pairs.pairs)
            if twice := next((pair for pair, count in names.items() if count > 1), None):
                raise DataError(f"the data of {name} hold the pair {twice} twice; restore them from their source")
            manifest = pairs.manifest(name, self.licence, self.part())
        pairs.save(folder)
        manifest.save(folder)
        return manifest

    def part(self) -> str:
        """Return what part of the benchmark the settings ask for, "" for the whole."""
        return str(self.params.name())

    def absent(self) -> str:
        """Say what is missing and what brings it to where it is looked for; "" where nothing is."""
        return ""

    @staticmethod
    def place(truth: PairTruth) -> str:
        """Return the place that a pair shows, "" where nobody can tell; pairs of two places have nothing in common.

        Raises:
            ConfigError: where the benchmark does not tell places apart.
        """
        raise ConfigError(f"the benchmark of {truth.name} does not say which pairs show the same place; take another")

    @staticmethod
    def sensor(reference: str) -> str:  # noqa: ARG004 (for those that need it)
        """Return what made an image, where one side of a benchmark's pairs has images of several kinds."""
        return ""

    @abstractmethod
    def _prepare(self, folder: Path, scratch: Path, workers: int) -> PairList:
        """Write what ``folder`` must hold beside its lists and return the pairs in a fixed order.

        Of each category ``params.some`` says which pairs are kept; ask it before anything is read or drawn for them.
        """

    @staticmethod
    def pairs(folder: Path) -> Iterator[BenchmarkPair]:
        """Yield the pairs of a prepared folder with their images, in a fixed order."""
        prepared = Prepared(folder)
        return (prepared.load(truth) for truth in prepared.list.pairs)


def as_matrix(values: np.ndarray) -> Matrix:
    """Return an array as plain rows; reading them back gives the same float64 numbers."""
    return [[float(v) for v in row] for row in np.asarray(values, dtype=np.float64)]


BENCHMARKS: Plugins[Benchmark] = Plugins("minima_core.evaluation.benchmarks", Benchmark, "benchmark")  # type: ignore[type-abstract]


def create_benchmark(name: str, settings: Any, protocol: str) -> Benchmark:
    """Return a benchmark plugin by name with its settings checked, for the protocol whose pairs it is to draw.

    Raises:
        ConfigError: for an unknown name or setting.
    """
    plugin = BENCHMARKS.get(name)
    return plugin(checked(settings, plugin.Params, f"benchmark.{name}"), protocol)
