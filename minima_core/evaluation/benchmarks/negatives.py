"""Pairs that do not belong together: how often a matcher finds one image in another that shows something else."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

from pydantic import field_validator

from minima_core.errors import DataError
from minima_core.evaluation.benchmarks.base import Benchmark, PairList, PairTruth, Task, create_benchmark
from minima_core.random import rng

logger = logging.getLogger(__name__)


class Negatives(Benchmark):
    """The pairs of another benchmark, and as many again whose image 1 is taken from a pair of another place.

    Pairs of which nobody can tell what else shows their place are left out, as are those of a sensor with one place.
    """

    class Params(Benchmark.Params):
        """Settings, ``benchmark.negatives`` in params.yaml; ``subset`` is that of the other benchmark."""

        of: str  # a benchmark that tells places apart
        settings: dict[str, Any]  # its own, but for subset
        seed: int

        @field_validator("settings")
        @classmethod
        def _one_subset(cls, settings: dict[str, Any]) -> dict[str, Any]:
            if "subset" in settings:
                raise ValueError("subset belongs beside settings, not in them")
            return settings

    licence: ClassVar[str] = "that of the benchmark its images are from"
    task: ClassVar[Task] = "overlap"
    params: Params

    def __init__(self, params: Params, protocol: str) -> None:
        super().__init__(params, protocol)
        self.source = create_benchmark(params.of, {**params.settings, "subset": params.subset}, protocol)

    def part(self) -> str:
        """Return what part of the other benchmark there is, "" for the whole."""
        return self.source.part()

    def absent(self) -> str:
        """Say what the other benchmark lacks."""
        return self.source.absent()

    def _prepare(self, folder: Path, scratch: Path, workers: int) -> PairList:
        listed = self.source._prepare(folder, scratch, workers)
        related = [pair for pair in listed.pairs if self.source.place(pair)]
        kinds: dict[str, dict[str, list[PairTruth]]] = {}  # by sensor of image 1 and place
        for pair in related:
            places = kinds.setdefault(self.source.sensor(pair.image1), {})
            places.setdefault(self.source.place(pair), []).append(pair)
        alone = {sensor for sensor, places in kinds.items() if len(places) < 2}
        related = [pair for pair in related if self.source.sensor(pair.image1) not in alone]
        if not related:
            raise DataError(f"all pairs of {self.params.of} show one place, or may; negatives need a second place")
        if alone:
            logger.warning("negatives leave out pairs with image 1 of %s: all show one place", ", ".join(sorted(alone)))
        apart = [self._apart(pair, kinds[self.source.sensor(pair.image1)]) for pair in related]
        there = {pair.category for pair in related}
        groups = {name: [c for c in own if c in there] for name, own in listed.groups.items()}
        return listed.model_copy(
            update={
                "task": self.task,
                "pairs": [pair for couple in zip(related, apart, strict=True) for pair in couple],
                "headline": [category for category in listed.headline if category in there],
                "groups": {name: own for name, own in groups.items() if own},
                "floor": {},  # of pairs whose geometry is not asked for
            }
        )

    def _apart(self, pair: PairTruth, places: dict[str, list[PairTruth]]) -> PairTruth:
        """Return image 0 of a pair with an image of another place, drawn by the pair's name."""
        own = self.source.place(pair)
        others = [other for place, pairs in places.items() if place != own for other in pairs]
        other = others[rng(self.params.seed, pair.name).integers(len(others))]
        return pair.model_copy(
            update={
                "name": f"{pair.name}-apart",
                "image1": other.image1,
                "sha1": other.sha1,
                "size1": other.size1,
                "K1": other.K1,
                "T_0to1": None,
                "H_0to1": None,
            }
        )
