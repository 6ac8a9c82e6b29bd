"""The report: one HTML file with everything in it, no link to follow and no script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from minima_core.evaluation.benchmarks.base import Prepared
from minima_core.evaluation.metrics import headline as headline_metric
from minima_core.evaluation.plotting import draw_matches
from minima_core.evaluation.scoring import PairScore, match_errors
from minima_core.report.drawing import Curve, jpeg_uri, svg_chart, svg_lines, svg_scatter
from minima_core.report.pairs import couples, error_curve, reach, unit
from minima_core.report.paper import Entry, PaperTable
from minima_core.report.summary import Comparison, Result, Summary
from minima_core.report.table import label, shown
from minima_core.types import Matches

TILE = 300  # pixels; seven in a row on a wide screen
MATCHES = 620
THRESHOLD = 3.0  # pixels up to which a match is drawn as right
HEIGHT = 240  # of the images that matches are drawn on


@dataclass(frozen=True)
class Gallery:
    """One image in all its modalities: RGB first, (H, W, 3) uint8 each."""

    name: str
    images: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class MatchPicture:
    """One pair with a model's matches drawn over it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        right: matches within the threshold.
        total: all of them.
        error: of the pose in degrees or of the homography in pixels, None where no model was found.
    """

    image: np.ndarray
    right: int
    total: int
    error: float | None


@dataclass(frozen=True)
class BeforeAfter:
    """The same pair by two models; ``tag`` says why it is shown."""

    benchmark: str
    matcher: str
    category: str
    name: str
    unit: str
    before: MatchPicture
    after: MatchPicture
    names: tuple[str, str]
    tag: str = ""


@dataclass(frozen=True)
class Worst:
    """A pair that a model is farthest off on, or finds no model of the geometry for."""

    benchmark: str
    label: str
    name: str
    unit: str
    picture: MatchPicture


@dataclass(frozen=True)
class Scatter:
    """The errors of two models on every pair, drawn, and how many became better and worse."""

    before: str
    after: str
    svg: str
    better: int
    worse: int


@dataclass(frozen=True)
class Swept:
    """A metric by the threshold of one estimator, the mean over seeds, drawn.

    Attributes:
        title: benchmark and protocol.
        names: the models, in the order of their colours.
        estimator: its name.
        metric: which one, as it is shown.
        svg: a line a model.
        spread: percent that a seed moves a point by, at most.
        failures: fewest and most pairs without a model.
    """

    title: str
    names: list[str]
    estimator: str
    metric: str
    svg: str
    spread: float
    failures: tuple[int, int]


@dataclass(frozen=True)
class Duel:
    """Models on one benchmark by one protocol, pair by pair; the first is what the others are held against."""

    title: str
    unit: str
    names: list[str]
    scatters: list[Scatter]
    curves: str


@dataclass(frozen=True)
class Finding:
    """One line of the validation table."""

    table: str
    rule: str
    checked: int
    broken: int
    observed: str


def duel(title: str, entries: Sequence[Entry]) -> Duel:
    """Return the charts of at most six models that were scored on the same pairs in the same way."""
    first, *others = entries
    limit = reach(first.scores)
    scatters = []
    for other in others:
        errors = couples(first.scores, other.scores)
        kept = [(min(before, limit), min(after, limit)) for before, after in errors]
        better, worse = sum(a < b for b, a in kept), sum(a > b for b, a in kept)
        svg = svg_scatter(errors, limit, f"errors of {first.label} and {other.label}")
        scatters.append(Scatter(first.label, other.label, svg, better, worse))
    curves = svg_lines({entry.label: error_curve(entry.scores) for entry in entries}, f"{title}: pairs within an error")
    return Duel(title, unit(first.scores), [entry.label for entry in entries], scatters, curves)


def swept(title: str, entries: Sequence[Entry]) -> Iterator[Swept]:
    """Yield a chart an estimator of those models, at most six, that were scored in several ways."""
    entries = [entry for entry in entries if entry.scores.sweep]
    for estimator in dict.fromkeys(way.estimator for entry in entries for way in entry.scores.sweep):
        metric = headline_metric(entries[0].scores.metrics)
        lines: dict[str, list[tuple[float, float]]] = {}
        spreads, failures = [], []
        for entry in entries:
            own = [way for way in entry.scores.sweep if way.estimator == estimator]
            failures += [way.failures for way in own]
            for threshold in sorted({way.threshold for way in own}):
                values = [way.metrics[metric] for way in own if way.threshold == threshold]
                spreads.append(max(values) - min(values))
                lines.setdefault(entry.label, []).append((threshold, sum(values) / len(values)))
        svg = svg_lines(lines, f"{title}: {metric} by the threshold of {estimator}", dots=True)
        ends = min(failures), max(failures)
        yield Swept(title, list(lines), estimator, shown(metric), svg, max(spreads), ends)


def match_picture(prepared: Prepared, k: int, matches: Matches, score: PairScore) -> MatchPicture:
    """Return pair ``k`` of a benchmark with a model's matches over it."""
    truth = prepared.list.pairs[k]
    images = prepared.image(truth.image0, truth.sha0), prepared.image(truth.image1, truth.sha1)
    errors = match_errors(truth, matches).numpy()
    points = matches.mkpts0.numpy(), matches.mkpts1.numpy()
    image = draw_matches(*images, *points, errors=errors, threshold=THRESHOLD, height=HEIGHT, limit=150)
    return MatchPicture(image, int((errors <= THRESHOLD).sum()), len(matches), score.error)


def render_page(
    summary: Summary,
    *,
    galleries: Sequence[Gallery],
    papers: Sequence[PaperTable],
    duels: Sequence[Duel],
    sweeps: Sequence[Swept],
    changed: Sequence[BeforeAfter],
    matches: Sequence[BeforeAfter],
    curves: Mapping[str, Mapping[str, Curve]],
    findings: Sequence[Finding],
) -> str:
    """Return the page; equal arguments give equal text.

    ``curves`` holds by matcher the curves of its training, named ``train/loss`` and so on.
    """
    return render(
        "page.html.j2",
        summary=summary,
        comparisons=summary.comparisons(),
        headline=[headline(c) for c in summary.comparisons()],
        label=label,
        span=_span,
        galleries=galleries,
        papers=papers,
        duels=duels,
        sweeps=sweeps,
        changed=changed,
        matches=matches,
        charts={matcher: charts(named) for matcher, named in curves.items()},
        findings=findings,
    )


def render(template: str, **values: Any) -> str:
    """Return one of this package's templates, filled in."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: files(__package__).joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"tile": _tile, "wide": _wide}
    return environment.get_template(template).render(shown=shown, match_threshold=THRESHOLD, **values)


def headline(comparison: Comparison) -> dict[str, Any]:
    """Return the one figure of a comparison, with what became of RGB pairs beside it."""
    metric = comparison.middle
    overall, rgb = comparison.overall, comparison.rgb
    return {
        "comparison": comparison,
        "metric": shown(metric),
        "parent": overall.parent[metric],
        "child": overall.child[metric],
        "gain": overall.gain(metric),
        "rgb": None if rgb is None else (rgb.parent[metric], rgb.child[metric]),
    }


def charts(curves: Mapping[str, Curve]) -> list[dict[str, Any]]:
    """Return a chart for each quantity that was validated, training and validation in one, the loss first."""
    quantities = dict.fromkeys(name.partition("/")[2] for name in curves if name.startswith("val/"))
    order = sorted(quantities, key=lambda name: (name != "loss", name))
    made = []
    for quantity in order:
        named = {part: curves[f"{part}/{quantity}"] for part in ("train", "val") if f"{part}/{quantity}" in curves}
        made.append({"title": quantity, "series": list(named), "svg": svg_chart(named, quantity)})
    return made


def _span(result: Result, metric: str) -> str:
    low, high = result.intervals.get(metric, (float("nan"), float("nan")))
    return f"{low:.1f} to {high:.1f}"


def _tile(image: np.ndarray) -> str:
    return jpeg_uri(image, width=TILE)


def _wide(image: np.ndarray) -> str:
    return jpeg_uri(image, width=MATCHES, quality=82)
