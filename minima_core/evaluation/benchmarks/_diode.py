"""DIODE's outdoor validation photographs against a picture of what was measured there; depth or normals."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np

from minima_core.errors import DataError
from minima_core.evaluation.benchmarks._aligned import Source, both_orders
from minima_core.evaluation.benchmarks._files import read_lines
from minima_core.evaluation.benchmarks._part import ScenePart
from minima_core.evaluation.benchmarks.base import Benchmark, PairList, Task
from minima_core.io.images import read_image
from minima_core.io.paths import inside

UPSTREAM = "./data/DIODE"  # where the published script has the data; homographies depend on it
OUTDOOR, LIST = "val/outdoor", "val/data_list/val_outdoor.csv"


class Diode(Benchmark):
    """Every photograph twice: (photograph, picture) and (picture, photograph), the second image warped."""

    class Params(ScenePart):
        """Where the data are."""

        root: Path  # the folder that holds val/

    licence: ClassVar[str] = "MIT"
    task: ClassVar[Task] = "homography"
    kind: ClassVar[str]  # depth or normal
    source: ClassVar[str]  # where what was measured comes from
    params: Params

    def absent(self) -> str:
        """Say what is missing."""
        root = self.params.root
        if not (root / OUTDOOR).is_dir():
            return f"no {OUTDOOR} in {root}; `minima download diode_val --out {root}`"
        measured = (root / OUTDOOR).rglob(f"*_{self.kind}.npy")
        if not (root / f"{OUTDOOR}_{self.kind}").is_dir() and next(measured, None) is None:
            return f"no *_{self.kind}.npy in {root / OUTDOOR}; `minima download {self.source} --out {root}`"
        return ""

    def _prepare(self, folder: Path, scratch: Path, workers: int) -> PairList:  # noqa: ARG002 - written to folder
        p = self.params
        photographs = p.some(p.of_scenes(_photographs(p.root), _scene))
        named = [(Path(path).stem, *self._sources(path)) for path in photographs]
        categories = f"rgb-{self.kind}", f"{self.kind}-rgb"
        what = f"diode_{self.kind}"
        return both_orders(
            named, categories, warped=1, folder=folder, workers=workers, what=what, protocol=self.protocol
        )

    def _sources(self, photograph: str) -> tuple[Source, Source]:
        root = self.params.root
        drawn = photograph.replace("/outdoor/", f"/outdoor_{self.kind}/")
        picture = root / drawn
        other = Source(picture, read_image, f"{UPSTREAM}/{drawn}")
        if not picture.is_file():
            measured = (root / photograph).with_name(f"{Path(photograph).stem}_{self.kind}.npy")
            if not measured.is_file():
                raise DataError(f"no {picture} and no {measured}; bring one of the two there")
            other = Source(measured, type(self).draw, f"{UPSTREAM}/{drawn}")
        return Source(root / photograph, read_image, f"{UPSTREAM}/{photograph}"), other

    @staticmethod
    @abstractmethod
    def draw(path: Path) -> np.ndarray:
        """Return (H, W, 3) uint8 of the measured values in ``path``, where no picture of them was brought."""


def _photographs(root: Path) -> list[str]:
    """Return the paths of the photographs below ``root``, in the order of the published list if it is there."""
    if (root / LIST).is_file():
        listed = [line.split(",")[0] for line in read_lines(root / LIST)]
        return [inside(path.removeprefix("./"), root / LIST) for path in listed]
    found = sorted((root / OUTDOOR).rglob("*.png"))
    if not found:
        raise DataError(f"no photographs in {root / OUTDOOR}; bring DIODE's val.tar.gz unpacked there")
    return [str(path.relative_to(root)) for path in found]


def _scene(photograph: str) -> str:
    """Return the scene of a path as ``val/outdoor/scene_00022/scan_00193/….png``."""
    return photograph.removeprefix(f"{OUTDOOR}/").partition("/")[0]


def read_npy(path: Path, channels: int) -> np.ndarray:
    """Return an (H, W, channels) float64 array of a file.

    Raises:
        DataError: if it is missing or none.
    """
    try:
        values = np.load(path, allow_pickle=False)
        return np.asarray(values, dtype=np.float64).reshape(*values.shape[:2], channels)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error}; get it from DIODE again") from None
