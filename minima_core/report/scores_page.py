"""A page of scores alone: models side by side on the same pairs, whoever made the scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from minima_core.errors import DataError
from minima_core.evaluation.benchmarks.base import Prepared
from minima_core.evaluation.metrics import Metrics, by_threshold
from minima_core.evaluation.predictions import read_predictions
from minima_core.evaluation.scoring import Scores
from minima_core.report.page import BeforeAfter, MatchPicture, Worst, duel, match_picture, render, swept
from minima_core.report.pairs import changed_most, farthest_off, reach, unit
from minima_core.report.paper import Entry, paper_tables

MOST = 6  # models in a chart; there are as many colours
SHOWN = 2  # pairs of two models that improved most, and as many that lost most; of one model, twice as many


@dataclass(frozen=True)
class Group:
    """Scores that compare: one benchmark, the same data, the same protocol to the last setting."""

    benchmark: str
    protocol: str
    protocol_hash: str
    entries: list[Entry]

    @property
    def title(self) -> str:
        """Benchmark, what part of it, and protocol."""
        return f"{self.entries[0].scores.title} by {self.protocol} ({self.protocol_hash[:12]})"

    @property
    def subset(self) -> str:
        """What part of the benchmark, "" for the whole."""
        return self.entries[0].scores.subset

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, by threshold."""
        return by_threshold(self.entries[0].scores.metrics)

    @property
    def rows(self) -> dict[str, list[Metrics | None]]:
        """By category and group of categories, the metrics of each model; None where it has none."""
        names = dict.fromkeys(n for e in self.entries for n in (*e.scores.groups, *e.scores.categories))
        return {name: [(e.scores.groups | e.scores.categories).get(name) for e in self.entries] for name in names}

    @property
    def left_out(self) -> list[str]:
        """Categories that have rows of their own and no part in the benchmark's figure."""
        scores = self.entries[0].scores
        return [name for name in scores.categories if scores.headline and name not in scores.headline]

    @property
    def floor(self) -> float | None:
        """How far the truth itself is from what people marked, in pixels."""
        return self.entries[0].scores.floor


def grouped(entries: Sequence[Entry]) -> list[Group]:
    """Return ``entries`` in groups that compare, in order; what differs in data or protocol never shares a table."""
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        s = entry.scores
        groups.setdefault((s.benchmark, s.data_digest, s.protocol_hash), []).append(entry)
    return [
        Group(benchmark, own[0].scores.protocol, protocol_hash, own)
        for (benchmark, _, protocol_hash), own in groups.items()
    ]


class Drawn:
    """Pairs of a group's models with their matches drawn over them."""

    def __init__(self, group: Group, predictions: Mapping[str, Path], benchmark: Path) -> None:
        """Read what is to be drawn.

        Args:
            group: which models.
            predictions: by label, the folder of ``predictions.h5``; models without one are left out.
            benchmark: the prepared folder.

        Raises:
            DataError: if predictions are of other pairs.
        """
        self.group, self.prepared = group, Prepared(benchmark)
        self.pairs = self.prepared.list.pairs
        overlap = self.prepared.list.task == "overlap"  # no pair there has a geometry to draw matches by
        self.entries = [] if overlap else [entry for entry in group.entries if entry.label in predictions]
        self.found = {entry.label: read_predictions(predictions[entry.label]) for entry in self.entries}
        for entry in self.entries:
            scores, origin = entry.scores, self.found[entry.label].origin
            if self.prepared.manifest.data_digest != scores.data_digest:
                raise DataError(f"{benchmark} is not what {entry.label} was scored on; give the folder that was")
            made = origin.benchmark_digest, origin.protocol, origin.model, [len(m) for m in self.found[entry.label]]
            if made != (scores.data_digest, scores.protocol, scores.model, [pair.matches for pair in scores.pairs]):
                raise DataError(
                    f"the scores of {entry.label} were not made from {predictions[entry.label]}; give the predictions "
                    "that they were made from"
                )

    def changed(self) -> Iterator[BeforeAfter]:
        """Yield the pairs that changed most between the first model and each other."""
        for first, other in product(self.entries[:1], self.entries[1:]):
            chosen = changed_most(first.scores.pairs, other.scores.pairs, reach(other.scores), SHOWN)
            labels = first.label, other.label
            for tag, numbers in zip(("improved", "lost"), chosen, strict=True):
                for k in numbers:
                    where = self.group.title, " against ".join(labels), self.pairs[k].category, self.pairs[k].name
                    before, after = (self._picture(entry, k) for entry in (first, other))
                    yield BeforeAfter(*where, unit(first.scores), before, after, labels, tag)

    def worst(self) -> Iterator[Worst]:
        """Yield the pairs that a model is farthest off on, where it is the only one; else the changes tell more."""
        for entry in self.entries if len(self.entries) == 1 else ():
            for k in farthest_off(entry.scores.pairs, 2 * SHOWN):
                yield Worst(
                    self.group.title, entry.label, self.pairs[k].name, unit(entry.scores), self._picture(entry, k)
                )

    def _picture(self, entry: Entry, k: int) -> MatchPicture:
        return match_picture(self.prepared, k, self.found[entry.label][k], entry.scores.pairs[k])


def render_scores(entries: Sequence[Entry], changed: Sequence[BeforeAfter] = (), worst: Sequence[Worst] = ()) -> str:
    """Return the page; equal arguments give equal text."""
    groups = grouped(entries)
    benchmarks = [group.benchmark for group in groups]
    return render(
        "scores.html.j2",
        groups=groups,
        several=sorted({name for name in benchmarks if benchmarks.count(name) > 1}),
        papers=paper_tables(entries),
        duels=[duel(g.title, g.entries[:MOST]) for g in groups if reach(g.entries[0].scores)],
        sweeps=[chart for g in groups for chart in swept(g.title, g.entries[:MOST])],
        changed=changed,
        worst=worst,
        interval=_interval,
    )


def _interval(scores: Scores, metric: str) -> str:
    if metric not in scores.intervals:
        return ""
    low, high = scores.intervals[metric]
    return f"{low:.1f}–{high:.1f}"
