from __future__ import annotations

import numpy as np
import pytest

from minima_core.synthesis._filters import along, gaussian, guided, tangents


def test_a_blur_wider_than_any_picture_takes_no_more_memory_than_it():
    ramp = np.tile(np.linspace(0, 1, 50, dtype=np.float32), (30, 1))
    wide, wider = gaussian(ramp, 1e4), gaussian(ramp, 1e12)
    assert np.array_equal(wide, wider) and np.ptp(wide) < 0.6


@pytest.mark.parametrize("angle", [0, 30, 75, 120])
def test_tangents_run_along_stripes(angle):
    ys, xs = np.mgrid[:80, :80].astype(np.float32)
    direction = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    stripes = np.sin(0.6 * (direction[0] * ys - direction[1] * xs)).astype(np.float32)
    flow, coherence = tangents(stripes, 3.0)
    cosine = np.abs(flow[20:60, 20:60] @ direction)
    assert cosine.min() > np.cos(np.radians(4))
    assert coherence[20:60, 20:60].min() > 0.9


def test_a_reduced_flow_follows_a_circle_as_the_whole_one_does():
    ys, xs = np.mgrid[:81, :101].astype(np.float32) - 40
    ring = np.exp(-0.5 * (np.hypot(xs, ys) - 25) ** 2).astype(np.float32)
    smooth = [along(ring, tangents(ring, 3.0, reduce)[0], 4.0) for reduce in (1, 2)]
    assert np.abs(smooth[1] - smooth[0]).mean() < 0.02 * ring.mean()
    assert np.abs(smooth[1] - ring)[np.hypot(xs, ys) > 5].max() < 0.1


def test_a_flat_picture_has_a_direction_but_no_coherence():
    flow, coherence = tangents(np.full((9, 9), 0.3, np.float32), 2.0)
    assert np.allclose(np.linalg.norm(flow, axis=-1), 1) and (coherence == 0).all()


@pytest.mark.parametrize("size", [41, 21, 14])
def test_smoothing_along_a_line_keeps_it_and_across_does_not(size):
    line = np.zeros((41, 41), np.float32)
    line[20] = 1
    horizontal = np.broadcast_to(np.array((1, 0), np.float32), (size, size, 2))
    vertical = np.broadcast_to(np.array((0, 1), np.float32), (size, size, 2))
    assert along(line, horizontal, 3.0)[20, 20] == pytest.approx(1)
    assert along(line, vertical, 3.0)[20, 20] < 0.3


@pytest.mark.parametrize("sigma", [1.0, 3.9, 4.1, 12.0, 48.0])
def test_gaussian_keeps_constants_and_has_its_width(sigma):
    assert np.allclose(gaussian(np.full((30, 50), 0.7, np.float32), sigma), 0.7, atol=1e-5)
    spike = np.zeros((401, 401), np.float32)
    spike[200, 200] = 1
    spread = gaussian(spike, sigma)[150 if sigma < 40 else 0 :].sum(0)
    xs = np.arange(401)
    mean = (xs * spread).sum() / spread.sum()
    assert mean == pytest.approx(200, abs=0.05 * sigma + 0.01)
    assert np.sqrt((((xs - mean) ** 2) * spread).sum() / spread.sum()) == pytest.approx(sigma, rel=0.1)


def test_guided_edges_follow_the_guide():
    guide = np.zeros((40, 40), np.float32)
    guide[:, 20:] = 1
    values = np.zeros((40, 40), np.float32)
    values[:, 22:] = 1  # two pixels off
    smooth = guided(values, guide, 4, 1e-4)
    assert np.abs(np.diff(smooth[20])).argmax() == 19
