"""What a page without links needs: images as data URIs and curves as inline SVG."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape

import cv2
import numpy as np

from minima_core.io.images import encode_jpeg

Curve = Sequence[tuple[int, float]]

_WIDTH, _HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 26
_POINTS = 240  # more would be finer than the pixels they are drawn on


def jpeg_uri(image: np.ndarray, *, width: int, quality: int = 80) -> str:
    """Return an (H, W, 3) uint8 RGB image, shrunk to at most ``width``, as a data URI."""
    if image.shape[1] > width:
        height = max(1, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image, quality)).decode()


def smoothed(curve: Curve, window: int) -> list[tuple[int, float]]:
    """Return the running mean over up to ``window`` points centred on each."""
    values = np.array([value for _, value in curve], dtype=float)
    half = window // 2
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = [(max(i - half, 0), min(i + half + 1, len(values))) for i in range(len(values))]
    return [(step, float((total[b] - total[a]) / (b - a))) for (step, _), (a, b) in zip(curve, ends, strict=True)]


def svg_chart(curves: Mapping[str, Curve], title: str) -> str:
    """Return a line chart as SVG text; colours come from the page's style sheet, by the curves' names as classes.

    Values that are not finite leave a gap. A curve of more than a few hundred points is drawn as its running mean over
    a pale line of the values themselves.
    """
    clean = {name: [(s, v) for s, v in curve if math.isfinite(v)] for name, curve in curves.items()}
    clean = {name: curve for name, curve in clean.items() if curve}
    if not clean:
        return ""
    steps = [step for curve in clean.values() for step, _ in curve]
    tall = {name: smoothed(curve, 9) if len(curve) > 40 else curve for name, curve in clean.items()}
    values = [value for curve in tall.values() for _, value in curve]
    axes = _Axes((min(steps), max(steps)), _padded(min(values), max(values)))
    body = [axes.grid()]
    for name, curve in clean.items():
        if len(curve) > 40:
            body.append(f'<path class="line pale {name}" d="{axes.path(curve)}"/>')
        body.append(f'<path class="line {name}" d="{axes.path(tall[name])}"/>')
        if len(curve) <= 40:
            body += [f'<circle class="dot {name}" cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>' for x, y in axes.points(curve)]
    return _chart("".join(body), title)


def svg_lines(curves: Mapping[str, Sequence[tuple[float, float]]], title: str, *, dots: bool = False) -> str:
    """Return lines through all their points, values in percent; their classes are ``s0``, ``s1`` and so on.

    With ``dots`` each point is marked, for curves of a few of them.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    axes = _Axes((0, max(x for x, _ in points)), (0, max(1.05 * max(y for _, y in points), 1.0)))
    lines = [
        f'<path class="line s{k}" d="M{"L".join(f"{axes.x(x):.1f} {axes.y(y):.1f}" for x, y in curve)}"/>'
        for k, curve in enumerate(curves.values())
    ]
    if dots:
        lines += [
            f'<circle class="dot s{k}" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="2.4"/>'
            for k, curve in enumerate(curves.values())
            for x, y in curve
        ]
    return _chart(axes.grid() + "".join(lines), title)


def svg_scatter(couples: Sequence[tuple[float, float]], limit: float, title: str) -> str:
    """Return a dot for each pair of errors, both axes by the square root up to ``limit``; what is beyond lies there.

    Dots below the diagonal are of class ``better``, above it ``worse``.
    """
    if not couples or limit <= 0:
        return ""
    axes = _Axes((0, math.sqrt(limit)), (0, math.sqrt(limit)))
    marks = [limit * share for share in (0.05, 0.1, 0.25, 0.5, 1)]  # the small errors have half of the chart
    body = []
    for value in marks:
        x, y = axes.x(math.sqrt(value)), axes.y(math.sqrt(value))
        body.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        body.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        body.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{value:g}</text>')
        body.append(f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{value:g}</text>')
    ends = axes.x(0), axes.y(0), axes.x(math.sqrt(limit)), axes.y(math.sqrt(limit))
    body.append('<line class="grid" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'.format(*ends))
    for before, after in couples:
        x, y = (math.sqrt(min(value, limit)) for value in (before, after))
        kind = "better" if y < x else "worse" if y > x else "same"
        body.append(f'<circle class="{kind}" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="2.6"/>')
    return _chart("".join(body), title)


def _chart(body: str, title: str) -> str:
    return f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg>'


class _Axes:
    """Maps steps and values to the plot's pixels."""

    def __init__(self, steps: tuple[float, float], values: tuple[float, float]) -> None:
        self.steps = (steps[0], max(steps[1], steps[0] + 1))
        self.values = values

    def x(self, step: float) -> float:
        return _LEFT + (step - self.steps[0]) / (self.steps[1] - self.steps[0]) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.values[0]) / (self.values[1] - self.values[0])
        share = min(max(share, 0.0), 1.0)  # a spike of the pale line ends at the frame
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def points(self, curve: Curve) -> list[tuple[float, float]]:
        chosen = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), _POINTS)).round().astype(int))
        return [(self.x(curve[i][0]), self.y(curve[i][1])) for i in chosen]

    def path(self, curve: Curve) -> str:
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in self.points(curve))

    def grid(self) -> str:
        lines = []
        for value in ticks(*self.values):
            y = self.y(value)
            lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            lines.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{value:g}</text>')
        for step in ticks(*self.steps):
            text = f'<text class="tick" x="{self.x(step):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{step:g}</text>'
            lines.append(text)
        return "".join(lines)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers within [low, high], at most ``most`` of them."""
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * n, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - margin, high + margin
