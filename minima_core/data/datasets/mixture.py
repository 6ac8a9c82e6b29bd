"""Several data sets as one: what a training draws from may be photographs and their warps, and posed frames with depth.

Each lies below the raw folder under its own name, as it would alone. Its scenes are called ``<scene>-<data set>``, the
scene's name first, because that is how validation knows scenes of benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field

from minima_core import licences
from minima_core.config import Section, checked
from minima_core.data.datasets.base import DATASETS, Dataset
from minima_core.data.index import Scene
from minima_core.errors import ConfigError
from minima_core.manifest import Relation


class Mixture(Dataset):
    """All scenes of all that it is a mixture of."""

    class Params(Section):
        """Settings, ``dataset.mixture`` in params.yaml."""

        of: Annotated[dict[str, dict[str, Any]], Field(min_length=2)]  # data set -> its settings

    def __init__(self, params: Section, *, seed: int) -> None:
        super().__init__(params, seed=seed)
        self.licence = licences.join(part.licence for part in self._parts.values())

    @cached_property
    def _parts(self) -> dict[str, Dataset]:
        where = "params.yaml: dataset.mixture.of"
        own = Path(__file__).stem
        parts = {}
        for name, values in cast("Mixture.Params", self.params).of.items():
            if name == own:
                raise ConfigError(f"{where} holds '{own}'; name what that is a mixture of")
            plugin = DATASETS.get(name)
            parts[name] = plugin(checked(values, plugin.Params, f"{where}.{name}"), seed=self.seed)
        return parts

    @property
    def relation(self) -> Relation:  # type: ignore[override]  # of others it is the class's
        """What relates the pairs, ``both`` where it is not the same in all parts."""
        first, *others = {part.relation for part in self._parts.values()}
        return "both" if others else first

    def prepare(self, root: Path, *, workers: int = 1) -> None:
        """Bring the raw scenes of each data set to a folder of its name.

        Raises:
            DataError: naming the file that cannot be used and what to do about it.
        """
        for name, part in self._parts.items():
            part.prepare(root / name, workers=workers)

    def scenes(self, root: Path, *, workers: int = 1) -> Iterator[Scene]:
        """Yield the scenes of one data set after the other."""
        for name, part in self._parts.items():
            for scene in part.scenes(root / name, workers=workers):
                yield replace(
                    scene,
                    name=f"{scene.name}-{name}",
                    image=_below(name, scene.image),
                    depth=_below(name, scene.depth),
                    material=_below(name, scene.material),
                )

    def attribution(self) -> list[str]:
        """Return whose work is in the images of any of them."""
        return [line for part in self._parts.values() for line in part.attribution()]

    def source(self) -> list[tuple[str, int, int]]:
        """Return the user's files that any of them reads."""
        return [file for part in self._parts.values() for file in part.source()]


def _below(folder: str, paths: list[str]) -> list[str]:
    return [path and f"{folder}/{path}" for path in paths]
