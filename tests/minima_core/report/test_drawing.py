import base64
import math

import numpy as np
import pytest

from minima_core.io.images import decode
from minima_core.report.drawing import jpeg_uri, smoothed, svg_chart, ticks


def test_jpeg_uri_shrinks_and_holds_the_image():
    image = np.zeros((40, 80, 3), np.uint8)
    image[..., 0] = 200
    kind, _, data = jpeg_uri(image, width=20).partition(",")
    assert kind == "data:image/jpeg;base64"
    small = decode(base64.b64decode(data))
    assert small.shape == (10, 20, 3)
    assert small.mean((0, 1)) == pytest.approx([200, 0, 0], abs=4)
    assert decode(base64.b64decode(jpeg_uri(image, width=500).partition(",")[2])).shape == image.shape


def test_a_running_mean_keeps_lines_and_length():
    line = [(s, 2.0 * s) for s in range(20)]
    assert smoothed(line, 5)[2:-2] == line[2:-2]
    assert len(smoothed(line, 5)) == 20


@pytest.mark.parametrize("span", [(0, 1), (0, 300), (-0.02, 0.03), (1e-5, 9e-5), (0.999, 1.001)])
def test_ticks_are_round_and_inside(span):
    found = ticks(*span)
    assert 2 <= len(found) <= 6
    assert all(span[0] - 1e-9 <= t <= span[1] + 1e-9 for t in found)
    assert found == sorted(found)


def test_a_chart_survives_gaps_constants_and_single_points():
    assert svg_chart({"a": []}, "nothing") == ""
    assert svg_chart({"a": [(0, math.nan)]}, "nothing") == ""
    for curve in ([(5, 1.0)], [(0, 2.0), (9, 2.0)], [(0, 1.0), (1, math.inf), (2, 0.5)]):
        text = svg_chart({"a": curve}, "x & y")
        assert "nan" not in text and "inf" not in text
        assert "x &amp; y" in text


def test_a_long_curve_is_thinned():
    text = svg_chart({"train": [(s, math.sin(s)) for s in range(5000)]}, "loss")
    assert len(text) < 12_000
