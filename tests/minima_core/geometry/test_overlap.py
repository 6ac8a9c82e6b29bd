"""Overlaps that can be worked out by hand."""

from __future__ import annotations

import pytest
import torch

from minima_core.geometry.overlap import depth_overlap, grid, homography_overlap

K = torch.tensor([[100.0, 0, 79.5], [0, 100, 59.5], [0, 0, 1]], dtype=torch.float64)
WALL = torch.full((120, 160), 4.0)


def moved(x: float) -> torch.Tensor:
    T = torch.eye(4, dtype=torch.float64)
    T[0, 3] = -x
    return T


def overlap(depths, T, pair=(0, 1)) -> float:
    return float(depth_overlap(depths, K.expand(2, 3, 3), torch.stack(T), torch.tensor([pair]), step=1)[0])


def test_same_view_overlaps_wholly():
    assert overlap([WALL, WALL], [moved(0), moved(0)]) == 1.0


def test_side_step_before_a_wall_loses_the_shift():
    # 1.6 m at 4 m and f = 100 is 40 pixels of 160
    assert overlap([WALL, WALL], [moved(0), moved(1.6)]) == pytest.approx(0.75)


def test_what_an_obstacle_hides_does_not_count():
    hidden = WALL.clone()
    hidden[:, :40] = 1.0
    assert overlap([WALL, hidden], [moved(0), moved(0)]) == pytest.approx(0.75)


def test_only_known_depth_counts():
    half = WALL.clone()
    half[:, :80] = 0
    assert overlap([half, WALL], [moved(0), moved(0)]) == 1.0
    assert overlap([WALL, half], [moved(0), moved(0)]) == pytest.approx(0.5)
    assert overlap([torch.zeros(120, 160), WALL], [moved(0), moved(0)]) == 0.0


def test_camera_that_looks_away_sees_nothing():
    back = torch.diag(torch.tensor([-1.0, 1, -1, 1], dtype=torch.float64))
    assert overlap([WALL, WALL], [moved(0), back]) == 0.0


def test_homography_shift_by_a_quarter():
    H = torch.tensor([[1.0, 0, -40], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    assert homography_overlap(H, (160, 120), (160, 120), step=1) == pytest.approx(0.75)
    assert homography_overlap(torch.eye(3, dtype=torch.float64), (160, 120), (160, 120)) == 1.0


def test_grid_is_centred():
    points = grid((10, 7), 4)
    assert points.tolist()[0] == [0, 1] and points.tolist()[-1] == [8, 5]
