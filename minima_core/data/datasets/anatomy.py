"""Slices of a human head as homography pairs, with the tissue of every pixel: for ``medical`` and ``nuclear``.

A head as magnetic resonance shows it, out of a package of Debian. Training sees axial and coronal slices, validation
sagittal ones, because neighbours of one plane look the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from pydantic import Field

from minima_core.config import digest
from minima_core.data.datasets._anatomy.head import PACKAGE, read_head
from minima_core.data.datasets._anatomy.slices import Plane, cut
from minima_core.data.datasets._commons.catalogue import attribution, licence
from minima_core.data.datasets._commons.fetch import contents
from minima_core.data.datasets.photos import Photo, PhotoViews, Views
from minima_core.io.atomic import write_bytes
from minima_core.io.images import write_image
from minima_core.manifest import Split, file_sha256
from minima_core.progress import track
from minima_core.provenance import code_digest
from minima_core.random import rng
from minima_core.weights import cache_folder

HELD_OUT: Plane = "sagittal"
TRAINED: tuple[Plane, ...] = ("axial", "axial", "coronal")  # in turn: most scanners' pictures are axial


class Anatomy(PhotoViews):
    """Slices of one head."""

    class Params(Views):
        """Settings, ``dataset.anatomy`` in params.yaml; ``validation_share`` is of the slices."""

        slices: int = Field(ge=2)
        tilt: float = Field(ge=0, le=45)  # degrees that a slice may be off its plane, about either axis

    def __init__(self, params: Params, *, seed: int) -> None:
        super().__init__(params, seed=seed)
        self.licence = licence((PACKAGE,))

    @property
    def settings(self) -> Params:
        """The settings with their type."""
        return cast("Anatomy.Params", self.params)

    @property
    def volumes(self) -> Path:
        """Where the head is kept."""
        return cache_folder().parent / "anatomy"

    @property
    def folder(self) -> Path:
        """Where slices by these settings are kept."""
        p = self.settings
        code = code_digest("data/datasets/_anatomy")
        return self.volumes / digest([p.slices, p.tilt, p.validation_share, p.size, p.crop, self.seed, code])[:12]

    @property
    def tissues(self) -> Path:
        """Where the maps of their tissues are kept."""
        return self.folder / "tissues"

    def planes(self) -> list[Plane]:
        """Return the plane of every slice."""
        held_out = max(1, round(self.settings.validation_share * self.settings.slices))
        trained = max(1, self.settings.slices - held_out)
        return [TRAINED[k % len(TRAINED)] for k in range(trained)] + [HELD_OUT] * held_out

    def files(self) -> list[Path]:
        """Return the slices."""
        return [self.folder / f"{plane}-{k:04d}.png" for k, plane in enumerate(self.planes())]

    def prepare(self, root: Path, *, workers: int = 1) -> None:
        """Fetch the head, cut it, then write views of the slices under ``root``.

        Raises:
            DataError: if the package cannot be had, or nibabel is not there to read it.
        """
        self.volumes.mkdir(parents=True, exist_ok=True)
        missing = [image for image in PACKAGE.images if not _whole(self.volumes / image.file, image.sha256)]
        for image, content in contents(PACKAGE, missing, self.volumes):
            write_bytes(self.volumes / image.file, content)
        self._cut()
        super().prepare(root, workers=workers)

    def _cut(self) -> None:
        p = self.settings
        missing = [path for path in self.files() if not (path.is_file() and (self.tissues / path.name).is_file())]
        if not missing:
            return
        head = read_head(self.volumes)
        size = (round(p.size[0] / p.crop), round(p.size[1] / p.crop))  # of which the crop has the size of a view
        for path in track(missing, "cutting slices"):
            plane = cast("Plane", path.stem.partition("-")[0])
            shown, tissues = cut(*head, plane, size, p.tilt, rng(self.seed, "slice", path.stem))
            write_image(self.tissues / path.name, tissues)
            write_image(path, shown)

    def _split(self, photos: list[Photo]) -> dict[Split, list[Photo]]:
        held_out = [photo for photo in photos if photo.path.name.startswith(HELD_OUT)]
        return {"train": [photo for photo in photos if photo not in held_out], "val": held_out}

    def attribution(self) -> list[str]:
        """Return whose head it is."""
        return attribution((PACKAGE,))


def _whole(path: Path, sha256: str) -> bool:
    """Whether a kept file is there and as the package has it."""
    return path.is_file() and file_sha256(path) == sha256
