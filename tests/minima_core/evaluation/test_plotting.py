from __future__ import annotations

import numpy as np

from minima_core.evaluation.plotting import GAP, RIGHT, UNKNOWN, WRONG, draw_matches

BLACK = np.zeros((40, 60, 3), np.uint8)
GRAY = np.full((30, 50, 3), 128, np.uint8)


def has(image: np.ndarray, colour) -> bool:
    return bool((image == np.array(colour)).all(-1).any())


def test_images_stand_side_by_side_with_a_gap():
    drawn = draw_matches(BLACK, GRAY, np.zeros((0, 2)), np.zeros((0, 2)))
    assert drawn.shape == (40, 60 + GAP + 50, 3)
    assert (drawn[:30, 60 + GAP :] == 128).all()
    assert (drawn[:, 60 : 60 + GAP] == 255).all()


def test_matches_are_coloured_by_correctness():
    points = np.array([[10.0, 10], [10, 30]])
    drawn = draw_matches(BLACK, BLACK, points, points, errors=np.array([1.0, 9.0]), threshold=3)
    assert has(drawn[5:15], RIGHT)
    assert not has(drawn[5:15], WRONG)
    assert has(drawn[25:35], WRONG)


def test_without_errors_nothing_claims_to_be_right():
    drawn = draw_matches(BLACK, BLACK, np.array([[5.0, 5]]), np.array([[5.0, 5]]))
    assert has(drawn, UNKNOWN)
    assert not has(drawn, RIGHT)


def test_a_height_scales_both_and_moves_the_points():
    drawn = draw_matches(BLACK, GRAY, np.array([[59.0, 39]]), np.array([[0.0, 0]]), height=20)
    assert drawn.shape == (20, 30 + GAP + 33, 3)
    assert has(drawn[17:, 26:30], UNKNOWN)


def test_the_limit_holds():
    points = np.column_stack([np.full(1000, 5.0), np.linspace(0, 39, 1000)])
    few = draw_matches(BLACK, BLACK, points, points, limit=2)
    assert (few[:, 60 + GAP // 2] != 255).any(-1).sum() < 8
