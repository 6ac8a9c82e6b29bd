"""Where points of one image lie in the other, on scenes whose answer is known."""

from dataclasses import fields, replace

import pytest
import torch
from two_views import S, plane, scene

from minima_core.data.image_pairs import ImageBatch
from minima_core.geometry.cells import grid_points
from minima_core.supervision.warp import warp, warp_pixels


def test_plane_shifts_by_focal_length_times_baseline_over_depth():
    points = torch.tensor([[[20.0, 30.0], [4.0, 5.0]]])
    found, valid = warp(points, scene(plane(5.0), plane(5.0)))
    torch.testing.assert_close(found[0, 0], torch.tensor([12.0, 30.0]))
    assert valid.tolist() == [[True, False]]  # the second leaves the image on the left


def test_hidden_point_is_known_only_without_the_tolerance():
    near = plane(5.0)
    near[:, :20] = 2.5  # hides what falls there
    batch = scene(plane(5.0), near)
    points = torch.tensor([[[20.0, 30.0], [40.0, 30.0]]])
    assert warp(points, batch)[1].tolist() == [[True, True]]
    assert warp(points, batch, tolerance=0.05)[1].tolist() == [[False, True]]


def test_relative_depth_error_is_what_the_tolerance_bounds():
    points = torch.tensor([[[30.0, 30.0]]])
    for seen, known in ((5.2, True), (5.3, False)):  # |5 - 5.2| / 5.2 = 3.8 %, |5 - 5.3| / 5.3 = 5.7 %
        assert warp(points, scene(plane(5.0), plane(seen)), tolerance=0.05)[1].item() is known


def test_points_without_depth_are_not_known():
    assert not warp(torch.tensor([[[30.0, 30.0]]]), scene(plane(0.0), plane(5.0)))[1].any()


def test_points_that_begin_or_end_in_padding_are_not_known():
    points = torch.tensor([[[20.0, 30.0], [40.0, 30.0], [30.0, 50.0]]])  # they move 8 px to the left
    left, below = (torch.ones(1, S, S, dtype=torch.bool) for _ in range(2))
    left[:, :, :16], below[:, 48:] = False, False
    batch = replace(scene(plane(5.0), plane(5.0)), mask0=below, mask1=left)
    assert warp(points, batch)[1].tolist() == [[False, True, False]]


@pytest.mark.parametrize("angle", [0.0, 0.2])
def test_homography_there_and_back(angle):
    c, s = torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))
    H = torch.tensor([[c, -s, 3], [s, c, -5], [1e-4, 0, 1]])
    batch = scene(plane(0.0), plane(0.0), H=H)
    points = 20 + 20 * torch.rand(1, 50, 2, generator=torch.Generator().manual_seed(0))
    there, valid = warp(points, batch)
    back, valid_back = warp(there, batch.swap())
    assert valid.all() and valid_back.all()
    torch.testing.assert_close(back, points, atol=1e-3, rtol=0)


@pytest.mark.parametrize("tolerance", [None, 0.05])
def test_all_pixels_at_once_are_what_each_is(tolerance):
    """In a batch of one pair with depth, with holes, and one with a homography, with padding."""
    holed, near = plane(5.0), plane(5.0)
    holed[20:30, 10:40], near[:, :20] = 0.0, 2.5
    flat = scene(plane(0.0), plane(0.0), H=torch.tensor([[1.0, 0.1, 3], [0, 1, -5], [1e-4, 0, 1]]))
    flat.mask1[:, 40:] = False
    both = [scene(holed, near), flat]
    batch = ImageBatch(*(torch.cat([getattr(one, f.name) for one in both]) for f in fields(ImageBatch)))
    pixels = grid_points(S, S, step=1, origin=0.0, device="cpu").expand(2, -1, -1)
    (found, valid), (expected, known) = (
        warp_pixels(batch, tolerance=tolerance),
        warp(pixels, batch, tolerance=tolerance),
    )
    assert torch.equal(valid, known) and 0.3 < valid.float().mean() < 0.9
    torch.testing.assert_close(found[valid], expected[valid], atol=1e-4, rtol=0)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_labels_are_the_same_in_a_training_of_half_precision(precision):
    turn = torch.tensor([[0.9, -0.1, 3], [0.1, 0.9, 5], [1e-4, 0, 1]])
    for batch in (scene(plane(4.9), plane(4.9)), scene(plane(0.0), plane(0.0), H=turn)):
        points = S * torch.rand(1, 200, 2, generator=torch.Generator().manual_seed(0))
        expected, known = warp(points, batch)
        with torch.autocast("cpu", precision):
            found, valid = warp(points, batch)
        assert torch.equal(found, expected) and torch.equal(valid, known)
