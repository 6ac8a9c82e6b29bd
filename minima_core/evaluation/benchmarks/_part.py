"""Part of a benchmark: some pairs of each category, those of some scenes; enough to try things, never the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from minima_core.config import Section, unknown
from minima_core.errors import ConfigError

T = TypeVar("T")
MOST = {"smoke": 2, "mini": 10}  # pairs of a category
Subset = Literal["smoke", "mini", "full"]


class Part(Section):
    """How many pairs of a category; settings of every benchmark."""

    subset: Subset

    def some(self, items: Sequence[T]) -> list[T]:
        """Return what is kept of the pairs of one category: from the first to the last, evenly, always the same."""
        most = MOST.get(self.subset, len(items))
        if len(items) <= most:
            return list(items)
        return [items[k * (len(items) - 1) // (most - 1)] for k in range(most)]

    def name(self) -> str:
        """Return what results call the part, "" for the whole."""
        return "" if self.subset == "full" else self.subset


class ScenePart(Part):
    """Which scenes too, where a benchmark has some."""

    scenes: list[str]  # these alone; [] for all

    def of_scenes(self, items: Sequence[T], scene: Callable[[T], str]) -> list[T]:
        """Return the items of the wanted scenes; ``scene`` tells the one of an item.

        Raises:
            ConfigError: if a wanted scene has none.
        """
        there = {scene(item) for item in items}
        if absent := [name for name in self.scenes if name not in there]:
            raise ConfigError(f"unknown scene: {unknown(absent[0], there, 'the data of this benchmark')}")
        return [item for item in items if not self.scenes or scene(item) in self.scenes]

    def name(self) -> str:
        """Return what results call the part, "" for the whole."""
        scenes = f"scenes {', '.join(self.scenes)}" if self.scenes else ""
        return ", ".join(filter(None, [super().name(), scenes]))
