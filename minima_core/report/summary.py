"""The summary of a run (``summary.json``): every score, beside what data, models and settings they came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from minima_core.evaluation.metrics import Metrics, by_threshold, gain, headline
from minima_core.manifest import Certificate, Record, titled
from minima_core.types import RGB

Stage = Literal["pretrained", "finetuned"]


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Result(_Plain):
    """How one model did on one benchmark; metric names as ``auc@5``, values in percent."""

    benchmark: str
    matcher: str
    model: Stage
    protocol: str
    protocol_hash: str
    data_digest: str
    subset: str = ""  # what part of the benchmark was scored; "" for the whole
    seed: int
    metrics: Metrics
    categories: dict[str, Metrics]
    groups: dict[str, Metrics] = {}  # of categories
    pairs: int
    failures: int
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)  # of the metrics, 95 % over pairs
    skipped: str = ""

    @property
    def rows(self) -> dict[str, Metrics]:
        """The metrics of each category and group."""
        return self.categories | self.groups


class Source(_Plain):
    """Something the results stand on, with the licence it came under."""

    kind: Literal["data set", "modality", "model", "benchmark", "weights"]
    name: str
    made_by: str
    digest: str
    licence: str
    commercial: bool | None = None  # None where nobody recorded it
    settings: dict[str, Any] = {}


class Summary(Record):
    """Everything that the page and the final table show, without clocks: equal runs give equal bytes."""

    FILE: ClassVar[str] = "summary.json"
    REMEDY: ClassVar[str] = "make it with `dvc repro summarise`"
    version: Literal[1] = 1
    dataset: str
    scenes: dict[str, int]  # by split
    seed: int
    modalities: list[str]
    certificate: Certificate
    results: list[Result]
    sources: list[Source]
    packages: dict[str, str]  # name -> version
    code: dict[str, str]  # part of the core -> digest of its sources

    def result(self, benchmark: str, matcher: str, model: Stage) -> Result | None:
        """Return one result, None where there is none or the benchmark was skipped."""
        for found in self.results:
            if (found.benchmark, found.matcher, found.model) == (benchmark, matcher, model) and not found.skipped:
                return found
        return None

    def comparisons(self) -> list[Comparison]:
        """Return a comparison for each benchmark and matcher that was not skipped, in the order of the results."""
        keys = dict.fromkeys((r.benchmark, r.matcher) for r in self.results)
        return [c for benchmark, matcher in keys if (c := self._comparison(benchmark, matcher)) is not None]

    def _comparison(self, benchmark: str, matcher: str) -> Comparison | None:
        parent = self.result(benchmark, matcher, "pretrained")
        child = self.result(benchmark, matcher, "finetuned")
        if parent is None or child is None:
            return None
        return Comparison(benchmark, matcher, parent, child, tuple(_ordered(child, self.modalities)))

    def skipped(self) -> dict[str, str]:
        """Return why benchmarks were skipped, by name."""
        return {r.benchmark: r.skipped for r in self.results if r.skipped}


@dataclass(frozen=True)
class Row:
    """One line of a comparison: the metrics of parent and child under one name."""

    name: str
    parent: Metrics
    child: Metrics

    def gain(self, metric: str) -> float:
        """Return how many points the child is better."""
        return gain(metric, self.parent[metric], self.child[metric])


@dataclass(frozen=True)
class Comparison:
    """A fine-tuned model beside its parent on one benchmark.

    Attributes:
        benchmark: its name.
        matcher: which matcher.
        parent: result of the model that fine-tuning started from.
        child: result of the fine-tuned model.
        names: of its categories and groups, in the order they are shown.
    """

    benchmark: str
    matcher: str
    parent: Result
    child: Result
    names: tuple[str, ...]

    @property
    def title(self) -> str:
        """The benchmark, and which part of it where that is not the whole."""
        return titled(self.benchmark, self.child.subset)

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, by threshold."""
        return by_threshold(self.child.metrics)

    @property
    def middle(self) -> str:
        """The metric that a single figure is given in."""
        return headline(self.child.metrics)

    @property
    def caveat(self) -> str:
        """Why the two do not compare; "" where they do."""
        if self.parent.protocol_hash != self.child.protocol_hash:
            ways = " and ".join(f"{r.protocol} ({r.protocol_hash[:12]})" for r in (self.parent, self.child))
            return f"the two were measured differently, by {ways}: their difference says nothing about the models"
        if self.parent.data_digest != self.child.data_digest:
            return "the two were measured on different data: their difference says nothing about the models"
        return ""

    @property
    def overall(self) -> Row:
        """The benchmark's own figure."""
        return Row("mean", self.parent.metrics, self.child.metrics)

    @property
    def rgb(self) -> Row | None:
        """What became of RGB pairs, None where the benchmark has none."""
        return next((row for row in self.rows() if row.name == RGB), None)

    def rows(self) -> Iterator[Row]:
        """Yield a row a category and group; one that parent or child lacks is left out."""
        for name in self.names:
            if name in self.parent.rows and name in self.child.rows:
                yield Row(name, self.parent.rows[name], self.child.rows[name])


def _ordered(result: Result, modalities: Sequence[str]) -> list[str]:
    """Return modalities as params.yaml lists them, then the rest by name, RGB (the retention) last."""
    known = [name for name in modalities if name in result.rows]
    rest = sorted(name for name in result.rows if name not in known and name != RGB)
    return [*known, *rest, *([RGB] if RGB in result.rows else [])]
