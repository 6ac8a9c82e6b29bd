"""The report: one HTML file with everything in it, no link to follow and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from minima_core.report.drawing import Curve, jpeg_uri, svg_chart
from minima_core.report.summary import Comparison, Summary
from minima_core.report.table import label, shown

TILE = 300  # pixels; seven in a row on a wide screen
MATCHES = 620


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
    """The same pair by parent and fine-tuned model."""

    benchmark: str
    matcher: str
    category: str
    name: str
    unit: str
    before: MatchPicture
    after: MatchPicture


@dataclass(frozen=True)
class Finding:
    """One line of the validation table."""

    table: str
    rule: str
    checked: int
    broken: int
    observed: str


def render_page(
    summary: Summary,
    *,
    galleries: Sequence[Gallery],
    matches: Sequence[BeforeAfter],
    curves: Mapping[str, Mapping[str, Curve]],
    findings: Sequence[Finding],
    match_threshold: float,
) -> str:
    """Return the page; equal arguments give equal text.

    ``curves`` holds by matcher the curves of its training, named ``train/loss`` and so on.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"tile": _tile, "wide": _wide}
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        summary=summary,
        comparisons=summary.comparisons(),
        headline=[headline(c) for c in summary.comparisons()],
        label=label,
        shown=shown,
        galleries=galleries,
        matches=matches,
        match_threshold=match_threshold,
        charts={matcher: charts(named) for matcher, named in curves.items()},
        findings=findings,
    )


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


def _tile(image: np.ndarray) -> str:
    return jpeg_uri(image, width=TILE)


def _wide(image: np.ndarray) -> str:
    return jpeg_uri(image, width=MATCHES, quality=82)
