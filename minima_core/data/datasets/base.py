"""What a data set plugin is: it brings raw scenes to a folder and says what lies there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from minima_core.config import Section
from minima_core.data.index import Scene
from minima_core.manifest import Relation
from minima_core.plugins import Plugins


class Dataset(ABC):
    """A source of image pairs with known geometry.

    ``prepare`` may be killed at any moment and continues when called again; what it writes depends on ``Params`` and
    ``seed`` only. Raw scenes lie in MegaDepth's layout, ``<scene>/dense0/{imgs,depths,materials}``; where the images
    already lie in a folder of the user, ``prepare`` brings copies, so that an index never points outside the checkout.
    """

    class Params(Section):
        """Settings of the data set, ``dataset.<name>`` in params.yaml."""

    licence: str  # of the images; a folder of the user's says it in its Params
    relation: ClassVar[Relation]

    def __init__(self, params: Section, *, seed: int) -> None:
        self.params = params
        self.seed = seed

    @abstractmethod
    def prepare(self, root: Path, *, workers: int = 1) -> None:
        """Bring all raw scenes under ``root``.

        Raises:
            DataError: naming the file that cannot be used and what to do about it.
        """

    @abstractmethod
    def scenes(self, root: Path, *, workers: int = 1) -> Iterator[Scene]:
        """Yield the scenes that lie under ``root``, the same for any number of workers; paths are relative to it."""

    def attribution(self) -> list[str]:
        """Return whose work is in the images, a line each, where their licences ask that this is said."""
        return []

    def source(self) -> list[tuple[str, int, int]]:
        """Return (path, bytes, time of change) of the user's files that ``prepare`` reads; empty where it reads none.

        Unfinished work is continued only while these stay the same.
        """
        return []


DATASETS: Plugins[Dataset] = Plugins("minima_core.data.datasets", Dataset, "data set")  # type: ignore[type-abstract]
