"""A page of scores alone: models side by side on the same pairs, whoever made the scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from minima_core.errors import DataError
from minima_core.evaluation.benchmarks.base import Prepared
from minima_core.evaluation.metrics import Metrics
from minima_core.evaluation.predictions import read_predictions
from minima_core.evaluation.scoring import Scores
from minima_core.report.page import BeforeAfter, Duel, duel, match_picture, render
from minima_core.report.pairs import changed_most, reach
from minima_core.report.paper import Entry, paper_tables

MOST = 6  # models in a chart; there are as many colours
CHANGED = 2  # pairs a couple of models that improved most, and as many that lost most


@dataclass(frozen=True)
class Group:
    """Scores that compare: one benchmark, the same data, the same protocol to the last setting."""

    benchmark: str
    protocol: str
    protocol_hash: str
    entries: list[Entry]

    @property
    def title(self) -> str:
        """Benchmark and protocol."""
        return f"{self.benchmark} by {self.protocol} ({self.protocol_hash[:12]})"

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, by threshold."""
        return sorted(self.entries[0].scores.metrics, key=_threshold)

    @property
    def rows(self) -> dict[str, list[Metrics | None]]:
        """By category and group of categories, the metrics of each model; None where it has none."""
        names = dict.fromkeys(n for e in self.entries for n in (*e.scores.groups, *e.scores.categories))
        return {name: [(e.scores.groups | e.scores.categories).get(name) for e in self.entries] for name in names}

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


def changed_pairs(group: Group, predictions: Mapping[str, Path], benchmark: Path) -> Iterator[BeforeAfter]:
    """Yield the pairs that changed most between the first model of a group and each other, drawn.

    Args:
        group: which models.
        predictions: by label, the folder of ``predictions.h5``; models without one are left out.
        benchmark: the prepared folder.

    Raises:
        DataError: if predictions are of other pairs.
    """
    prepared = Prepared(benchmark)
    drawn = [entry for entry in group.entries if entry.label in predictions]
    if prepared.list.task == "overlap" or len(drawn) < 2:
        return
    first, *others = drawn
    found = {entry.label: read_predictions(predictions[entry.label]) for entry in drawn}
    names = [truth.name for truth in prepared.list.pairs]
    for label, matches in found.items():
        if matches.names != names:
            raise DataError(f"{predictions[label]} does not hold the pairs of {benchmark}; match the benchmark again")
    for other in others:
        couple = first, other
        chosen = changed_most(first.scores.pairs, other.scores.pairs, reach(other.scores), CHANGED)
        for tag, numbers in zip(("improved", "lost"), chosen, strict=True):
            for k in numbers:
                truth = prepared.list.pairs[k]
                images = prepared.image(truth.image0, truth.sha0), prepared.image(truth.image1, truth.sha1)
                before, after = (
                    match_picture(truth, *images, found[e.label][k], e.scores.pairs[k].error) for e in couple
                )
                unit = "°" if truth.H_0to1 is None else " px"
                labels = first.label, other.label
                where = group.title, " against ".join(labels), truth.category, truth.name
                yield BeforeAfter(*where, unit, before, after, labels, tag)


def render_scores(entries: Sequence[Entry], changed: Sequence[BeforeAfter]) -> str:
    """Return the page; equal arguments give equal text."""
    groups = grouped(entries)
    benchmarks = [group.benchmark for group in groups]
    return render(
        "scores.html.j2",
        groups=groups,
        several=sorted({name for name in benchmarks if benchmarks.count(name) > 1}),
        papers=paper_tables(entries),
        duels=[_duel(group) for group in groups if reach(group.entries[0].scores)],
        changed=changed,
        interval=_interval,
    )


def _duel(group: Group) -> Duel:
    return duel(group.title, group.entries[:MOST])


def _interval(scores: Scores, metric: str) -> str:
    if metric not in scores.intervals:
        return ""
    low, high = scores.intervals[metric]
    return f"{low:.1f}–{high:.1f}"


def _threshold(metric: str) -> tuple[str, float]:
    what, _, at = metric.partition("@")
    return what, float(at.removesuffix("px") or 0)
