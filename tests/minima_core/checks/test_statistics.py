import numpy as np
import pytest

from minima_core.checks.cameras import camera_problem, homography_problem, pose_error
from minima_core.checks.contrast import contrast, off_palette

SIZE = (640, 480)


def test_contrast_of_half_black_half_white():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 4:] = 255
    assert contrast(image) == {"std": 127.5, "entropy": 1.0, "saturated": 1.0}


def test_a_flat_image_has_no_contrast():
    assert contrast(np.full((4, 8, 3), 90, np.uint8)) == {"std": 0.0, "entropy": 0.0, "saturated": 0.0}


def test_off_palette_is_the_share_of_other_colours():
    image = np.full((2, 4, 3), 255, np.uint8)
    image[0, 0] = (0, 0, 255)
    image[1, 1:3] = (0, 0, 254)
    assert off_palette(image, [(255, 255, 255), (0, 0, 255)]) == pytest.approx(2 / 8)


def rotation(degrees: float) -> np.ndarray:
    a = np.deg2rad(degrees)
    T = np.eye(4)
    T[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return T


def test_a_rigid_motion_has_no_error():
    T = rotation(33)
    T[:3, 3] = (4, -5, 600)
    assert pose_error(T) < 1e-12


@pytest.mark.parametrize("entry", [(0, 0), (1, 3), (3, 3)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_pose_that_is_not_finite_is_infinitely_wrong(entry, value):
    T = np.eye(4)
    T[entry] = value
    assert pose_error(T) == np.inf


def test_mirrors_scales_shears_and_bad_last_rows_are_wrong():
    mirror, scale, shear, last = (np.eye(4) for _ in range(4))
    mirror[0, 0] = -1
    scale[:3, :3] *= 1.01
    shear[0, 1] = 0.02
    last[3, 0] = 0.5
    assert pose_error(mirror) == pytest.approx(2)
    assert pose_error(scale) == pytest.approx(1.01**3 - 1)
    assert pose_error(shear) == pytest.approx(0.02)
    assert pose_error(last) == 0.5


@pytest.mark.parametrize(
    ("entry", "value", "word"),
    [
        ((0, 0), np.nan, "finite"),
        ((0, 0), -500, "focal"),
        ((2, 2), 2, "triangular"),
        ((0, 2), 5000, "principal point"),
    ],
)
def test_camera_problems_are_named(entry, value, word):
    K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    assert camera_problem(K, SIZE) == ""
    K[entry] = value
    assert word in camera_problem(K, SIZE)


def test_homography_problems_are_named():
    assert homography_problem(np.eye(3), SIZE) == ""
    assert homography_problem(np.diag([0.2, 0.2, 1.0]), SIZE) == ""
    assert "finite" in homography_problem(np.full((3, 3), np.nan), SIZE)
    assert "infinity" in homography_problem(np.array([[1, 0, 0], [0, 1, 0], [-1 / 300, 0, 1]]), SIZE)
    assert "mirrors" in homography_problem(np.diag([-1.0, 1, 1]), SIZE)
