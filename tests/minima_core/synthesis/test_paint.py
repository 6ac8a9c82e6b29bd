from __future__ import annotations

import cv2
import numpy as np
import pytest

from minima_core.errors import ConfigError
from minima_core.random import rng
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.paint._brush import impasto, lay
from minima_core.synthesis.paint._placement import StrokeSet, place


def paint(engine, image, **settings):
    return engine("paint", **settings).synthesise(Source("s/0", image), seed=0, modality="paint")


def test_painting_keeps_the_picture_and_adds_the_brush(engine, photo):
    painting = paint(engine, photo).image
    coarse = [cv2.GaussianBlur(i, (0, 0), 4).astype(int) for i in (photo, painting)]
    assert np.abs(coarse[0] - coarse[1]).mean() < 12  # the picture at a distance
    assert np.abs(painting.astype(int) - photo).mean() > 8  # but not the photograph


def test_edges_survive(engine, photo):
    def edges(image):
        gray = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1.5).astype(np.float32)
        return np.hypot(cv2.Sobel(gray, -1, 1, 0), cv2.Sobel(gray, -1, 0, 1))

    before, after = edges(photo).ravel(), edges(paint(engine, photo).image).ravel()
    assert np.corrcoef(before, after)[0, 1] > 0.6


def test_finer_brushes_go_only_where_the_canvas_is_wrong(engine):
    image = np.full((160, 200, 3), 120, np.uint8)
    image[60:100, 140:180] = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    counts = paint(engine, image).drawn["strokes"]
    assert counts[0] > 60  # the first brush covers the canvas
    assert counts[-1] < 0.2 * (160 * 200 / (0.8 * 3) ** 2)


def test_strokes_follow_the_edges():
    reference = np.zeros((80, 80, 3), np.float32)
    reference[:, 40:] = 1
    flow = np.broadcast_to(np.array((0, 1), np.float32), (80, 80, 2)).copy()
    strokes = place(reference, 1 - reference, flow, 8.0, tolerance=0.1, rng=rng(0, "t"))
    assert np.ptp(strokes.spine[..., 0], axis=1).max() == 0
    assert np.ptp(strokes.spine[..., 1], axis=1).max() > 16


def test_strokes_stop_where_the_colour_changes():
    reference = np.zeros((80, 80, 3), np.float32)
    reference[:, 40:] = 1
    flow = np.broadcast_to(np.array((1, 0), np.float32), (80, 80, 2)).copy()
    strokes = place(reference, 1 - reference, flow, 8.0, tolerance=0.1, rng=rng(0, "t"))
    left = strokes.spine[..., 0] < 40
    assert (left.all(1) | ~left.any(1)).all()


def test_nothing_is_painted_on_a_finished_canvas():
    reference = np.random.default_rng(0).random((40, 40, 3)).astype(np.float32)
    flow = np.ones((40, 40, 2), np.float32)
    assert len(place(reference, reference, flow, 4.0, tolerance=0.01, rng=rng(0, "t"))) == 0


def test_a_stroke_covers_its_spine_in_its_colour_and_nothing_far_away():
    spine = np.array([[[10, 20], [15, 20], [20, 20], [25, 20], [30, 20]]], np.float32)
    layer = lay(StrokeSet(spine, np.array([[1, 0.5, 0]], np.float32), 6.0), (40, 60), rng(0, "t"))
    assert layer.opacity[20, 10:31].min() == 1
    assert layer.colour[20, 20] == pytest.approx((1, 0.5, 0), abs=0.06)
    assert layer.opacity[28:].max() == 0 and layer.opacity[:, 40:].max() == 0


def test_no_strokes_leave_the_canvas_alone():
    empty = StrokeSet(np.zeros((0, 5, 2), np.float32), np.zeros((0, 3), np.float32), 6.0)
    canvas, relief = np.full((9, 9, 3), 0.4, np.float32), np.full((9, 9), 0.1, np.float32)
    after, height = lay(empty, (9, 9), rng(0, "t")).over(canvas, relief)
    assert (after == canvas).all() and (height == relief).all()


def test_light_falls_on_relief_only():
    assert np.abs(impasto(np.full((20, 20), 0.7, np.float32))).max() == 0
    ramp = np.tile(np.linspace(0, 1, 20, dtype=np.float32), (20, 1))
    assert impasto(ramp)[10, 10] > 0 > impasto(-ramp)[10, 10]


@pytest.mark.parametrize("brushes", [[0], [20, -3], []])
def test_a_brush_has_a_width(brushes):
    with pytest.raises(ConfigError, match="brushes"):
        MODALITIES.create("paint", {**MODALITIES.settings("paint", "strokes"), "brushes": brushes})
