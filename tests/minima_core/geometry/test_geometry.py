"""Geometry against scenes whose answer follows from a drawing."""

import math

import pytest
import torch

from minima_core.geometry.camera import project, unproject
from minima_core.geometry.coords import (
    from_corner_origin,
    rescale_K,
    rescale_points,
    scaling,
    to_corner_origin,
    to_grid,
)
from minima_core.geometry.epipolar import essential, fundamental, symmetric_distances
from minima_core.geometry.homography import corner_error, warp_homography
from minima_core.geometry.pose import orthonormality_error, relative_pose, rotation_error, transform, translation_error
from minima_core.geometry.project import inside, sample_depth, warp_points

K = torch.tensor([[500.0, 0, 320], [0, 480, 240], [0, 0, 1]], dtype=torch.float64)


def rotation_y(degrees: float) -> torch.Tensor:
    a = math.radians(degrees)
    return torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]], dtype=torch.float64)


def pose(R: torch.Tensor, t: tuple[float, float, float]) -> torch.Tensor:
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3], T[:3, 3] = R, torch.tensor(t, dtype=torch.float64)
    return T


def test_corner_origin_and_back():
    points = torch.tensor([[0.0, 0.0], [3.5, 2.0]])
    assert torch.equal(to_corner_origin(points)[0], torch.tensor([0.5, 0.5]))
    assert torch.equal(from_corner_origin(to_corner_origin(points)), points)


def test_rescaling_moves_the_pixel_centre():
    # halving an image puts the first centre between its first two pixels' centres
    assert torch.allclose(rescale_points(torch.tensor([[0.5, 0.5]]), (0.5, 0.5)), torch.tensor([[0.0, 0.0]]))


def test_rescaled_intrinsics_project_to_rescaled_pixels():
    X = torch.tensor([[0.3, -0.2, 2.0], [-0.5, 0.4, 3.0]], dtype=torch.float64)
    scale = (0.5, 0.25)
    small, _ = project(X, rescale_K(K, scale))
    full, _ = project(X, K)
    assert torch.allclose(small, rescale_points(full, scale))
    assert torch.allclose(small, warp_homography(scaling(scale), full))


def test_unproject_inverts_project():
    points = torch.tensor([[10.0, 20.0], [600.0, 400.0]], dtype=torch.float64)
    depth = torch.tensor([1.5, 7.0], dtype=torch.float64)
    pixels, z = project(unproject(points, depth, K), K)
    assert torch.allclose(pixels, points)
    assert torch.allclose(z, depth)


def test_points_behind_the_camera_have_no_pixel():
    pixels, z = project(torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64), K)
    assert pixels.isnan().all()
    assert z.item() == -1


def test_sideways_step_gives_the_disparity_f_t_over_z():
    T = pose(torch.eye(3, dtype=torch.float64), (-0.1, 0, 0))
    points = torch.tensor([[[320.0, 240.0]]], dtype=torch.float64)
    warped, z = warp_points(points, torch.tensor([[2.0]], dtype=torch.float64), K[None], K[None], T[None])
    assert torch.allclose(warped[0, 0], torch.tensor([320.0 - 500 * 0.1 / 2, 240.0], dtype=torch.float64))
    assert z.item() == pytest.approx(2.0)


def test_warping_there_and_back_returns_the_point():
    T = pose(rotation_y(10), (0.3, -0.1, 0.2))
    points = torch.rand(1, 50, 2, dtype=torch.float64) * torch.tensor([640.0, 480.0], dtype=torch.float64)
    depth = torch.rand(1, 50, dtype=torch.float64) * 4 + 2
    there, z = warp_points(points, depth, K[None], K[None], T[None])
    back, _ = warp_points(there, z, K[None], K[None], torch.linalg.inv(T)[None])
    assert torch.allclose(back, points)


def test_relative_pose_maps_camera_0_to_camera_1():
    T0, T1 = pose(rotation_y(20), (1, 2, 3)), pose(rotation_y(-5), (0, 1, 0))
    X = torch.rand(5, 3, dtype=torch.float64)
    assert torch.allclose(transform(relative_pose(T0, T1), transform(T0, X)), transform(T1, X))


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 3.0, 90.0, 179.0])
def test_rotation_error_is_the_angle(degrees):
    R = rotation_y(37)
    assert rotation_error(R @ rotation_y(degrees), R).item() == pytest.approx(degrees, abs=1e-7)


def test_translation_error_folds_the_sign():
    t = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    s = torch.tensor([-math.cos(0.1), math.sin(0.1), 0], dtype=torch.float64)
    assert translation_error(t, s).item() == pytest.approx(math.degrees(0.1))


def test_a_mirror_is_no_rotation():
    assert orthonormality_error(torch.diag(torch.tensor([1.0, 1, -1]))).item() == 1
    assert orthonormality_error(rotation_y(12)).item() < 1e-12


def test_epipolar_distance_is_zero_for_projections_and_the_offset_for_a_sideways_step():
    T = pose(torch.eye(3, dtype=torch.float64), (-0.5, 0, 0))  # epipolar lines are the rows
    F_0to1 = fundamental(T, K, K)
    p0 = torch.tensor([[100.0, 200.0]], dtype=torch.float64)
    p1 = torch.tensor([[50.0, 200.0], [50.0, 207.0]], dtype=torch.float64)
    assert torch.allclose(symmetric_distances(p0, p1, F_0to1), torch.tensor([[0.0, 7.0]], dtype=torch.float64))
    assert torch.allclose(essential(T).trace(), torch.tensor(0.0, dtype=torch.float64))


def test_corner_error_of_a_translation_is_its_length():
    H_est = torch.tensor([[1.0, 0, 3], [0, 1, 4], [0, 0, 1]])
    assert corner_error(H_est, torch.eye(3), (640, 480)) == pytest.approx(5.0)


def test_corner_error_does_not_forgive_a_half_turn():
    half_turn = torch.tensor([[-1.0, 0, 639], [0, -1, 479], [0, 0, 1]])
    assert corner_error(half_turn, torch.eye(3), (640, 480)) > 500


def test_corner_error_of_a_degenerate_homography_is_infinite():
    assert corner_error(torch.zeros(3, 3), torch.eye(3), (64, 48)) == math.inf


def test_depth_sampling_interpolates_falls_back_to_nearest_and_knows_holes():
    depth = torch.tensor([[[1.0, 3.0, 0.0, 0.0], [1.0, 3.0, 0.0, 0.0]]])
    points = torch.tensor([[[0.5, 0.5], [1.25, 0.0], [2.6, 0.0], [-1.0, 0.0]]])
    found = sample_depth(depth, points)[0]
    assert found[0].item() == pytest.approx(2.0)
    assert found[1].item() == pytest.approx(3.0)  # a neighbour is unknown: the nearest
    assert found[2:].isnan().all()


def test_inside_includes_the_border_pixels():
    points = torch.tensor([[0.0, 0.0], [639.0, 479.0], [639.5, 0.0], [-0.1, 5.0]])
    assert inside(points, (640, 480)).tolist() == [True, True, False, False]


def test_grid_has_pixel_centres_half_a_pixel_from_the_edge():
    assert torch.allclose(to_grid(torch.tensor([[0.0, 0.0]]), (4, 2)), torch.tensor([[-0.75, -0.5]]))
